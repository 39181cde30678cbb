#!/usr/bin/env bash
# Compares Windrow with DataFusion, DuckDB and Polars on the same Parquet files (see ../README.md).
# Makes a virtual environment and the data under target/compare at the first run; arguments go to compare.py.
set -euo pipefail
cd "$(dirname "$0")/../.."
work=target/compare
if [ ! -x "$work/venv/bin/python" ]; then
    python3 -m venv "$work/venv"
    "$work/venv/bin/pip" install --quiet duckdb polars pyarrow datafusion
fi
cargo build --release --workspace --bins
exec "$work/venv/bin/python" benches/compare/compare.py --data "$work/data" "$@"
