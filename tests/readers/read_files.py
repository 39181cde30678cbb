"""Prints the rows of all files that a sink has written, as DuckDB reads them: read_files.py DIRECTORY FORMAT COLUMNS.

FORMAT is parquet, csv or json. A file that cannot be read is an error.
"""

import glob
import sys

import duckdb

directory, form, columns = sys.argv[1:]
ending = {"parquet": "parquet", "csv": "csv*", "json": "ndjson*"}[form]
pattern = f"{directory}/**/*.{ending}"
if not glob.glob(pattern, recursive=True):
    sys.exit(0)
more = ", all_varchar = true" if form == "csv" else ""
rows = duckdb.sql(f"SELECT {columns} FROM read_{form}('{pattern}', hive_partitioning = true{more})")
for row in rows.fetchall():
    print(",".join("" if value is None else str(value) for value in row))
