"""Reads a view's archive with deltalake, pyarrow and DuckDB and compares it with what Windrow itself answers.

    read_archive.py DIR/views/<dir> rows.ndjson

`rows.ndjson` is `SELECT * FROM view` in `--format ndjson`. Rows are compared as bags. Timestamps are compared in microseconds: Delta
has no finer ones. Prints the number of rows, or what differs and exits with 1.
"""

import datetime
import decimal
import json
import math
import os
import sys
from collections import Counter
from urllib.parse import unquote, urlparse

import duckdb
import pyarrow
import pyarrow.parquet
from deltalake import DeltaTable


def plain(value):
    """A value of a reader, or of the JSON, in one form for both."""
    if isinstance(value, datetime.datetime):
        if value.tzinfo is not None:
            value = value.astimezone(datetime.timezone.utc).replace(tzinfo=None)
        return value.isoformat(timespec="microseconds")
    if isinstance(value, datetime.date):
        return value.isoformat()
    if isinstance(value, bool) or value is None or isinstance(value, str):
        return value
    if isinstance(value, (int, float, decimal.Decimal)):
        if isinstance(value, float) and not math.isfinite(value):
            return repr(value)
        return str(decimal.Decimal(str(value)).normalize())
    if isinstance(value, (list, tuple)):
        return tuple(plain(v) for v in value)
    if isinstance(value, dict):
        return tuple((k, plain(v)) for k, v in value.items())
    raise SystemExit(f"no form for a {type(value)}: {value!r}")


def json_value(value, kind):
    """A value of the JSON; `kind` is the column's Arrow type."""
    if value is None:
        return None
    if pyarrow.types.is_timestamp(kind):
        value = value.rstrip("Z")
        whole, _, part = value.partition(".")
        return f"{whole}.{(part + '000000')[:6]}"
    return plain(value)


def bag(names, rows):
    return Counter(tuple(row[name] for name in names) for row in rows)


def arrow_rows(table):
    """The rows of an Arrow table; timestamps are cut to microseconds."""
    for i, field in enumerate(table.schema):
        if pyarrow.types.is_timestamp(field.type) and field.type.unit == "ns":
            cut = table.column(i).cast(pyarrow.timestamp("us", field.type.tz), safe=False)
            table = table.set_column(i, field.name, cut)
    return [{name: plain(value) for name, value in row.items()} for row in table.to_pylist()]


def local_path(uri):
    """Where a file of the table lies; deltalake writes odd characters as %XX, with and without a scheme."""
    path = urlparse(uri).path if uri.startswith("file:") else uri
    return path if os.path.exists(path) else unquote(path)


def main():
    where, expected = sys.argv[1:]
    delta = DeltaTable(where)
    files = [local_path(uri) for uri in delta.file_uris()]
    if not files:
        raise SystemExit(f"no files in {where}")

    by_delta = pyarrow.table(delta.to_pyarrow_table())
    names = by_delta.schema.names
    kinds = {field.name: field.type for field in by_delta.schema}
    with open(expected, encoding="utf-8") as lines:
        rows = [json.loads(line, parse_float=decimal.Decimal) for line in lines if line.strip()]
    wrong = []
    if rows and list(rows[0]) != names:
        wrong.append(f"columns: {list(rows[0])} in Windrow, {names} in the archive")
        names = [name for name in names if name in rows[0]]
    truth = bag(names, [{name: json_value(row[name], kinds[name]) for name in names} for row in rows])

    by_arrow = pyarrow.concat_tables([pyarrow.parquet.ParquetFile(f).read() for f in files])
    by_duckdb = duckdb.connect().sql("SELECT * FROM read_parquet(?)", params=[files]).to_arrow_table()
    for reader, table in (("deltalake", by_delta), ("pyarrow", by_arrow), ("duckdb", by_duckdb)):
        found = bag(names, arrow_rows(table))
        if found != truth:
            lacks, more = list((truth - found).elements()), list((found - truth).elements())
            wrong.append(f"{reader}: {found.total()} rows, not {truth.total()}; lacks {lacks[:5]}, has besides {more[:5]}")
    if wrong:
        print("\n".join(wrong), file=sys.stderr)
        raise SystemExit(1)
    print(truth.total())


if __name__ == "__main__":
    main()
