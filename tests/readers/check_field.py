"""Compares what Windrow answered for a folder of `sql/` with what DuckDB computes from the same streams.

    check_field.py FOLDER EXPORTS

EXPORTS has what Windrow wrote by `COPY … TO`: `inputs/NAME.parquet` (streams and reference tables), `views/NAME.parquet`, and
`queries/N.parquet` beside `queries/N.sql`. FOLDER/check.duckdb.sql makes a table or view of the name of each materialized view from the
inputs. Each has to have the same rows, as bags; and each query the same rows in its own order, by the same text over what DuckDB made.

Numbers with a fraction are equal within 1e-9 of the greater one (or 1e-9): sums are added up in another order. Timestamps are compared
in microseconds. All else is equal exactly.
Prints what was compared, or what differs and exits with 1.
"""

import decimal
import sys
from pathlib import Path

import duckdb

TOLERANCE = 1e-9


def key(row):
    """Rows that are equal within the tolerance stand at the same place: by the exact values first."""
    exact = tuple((type(v).__name__ if v is None else "", str(v)) for v in row if not isinstance(v, float))
    return exact, tuple(round(v, 4) for v in row if isinstance(v, float))


def same(a, b):
    if isinstance(a, float) and isinstance(b, float):
        return a == b or a != a and b != b or abs(a - b) <= TOLERANCE * max(1.0, abs(a), abs(b))
    if isinstance(a, decimal.Decimal) or isinstance(b, decimal.Decimal):
        return a is not None and b is not None and decimal.Decimal(a) == decimal.Decimal(b)
    return type(a) is type(b) and a == b


def compare(what, windrow, duck, ordered):
    """The number of rows of two relations that are the same; what differs is added to WRONG."""
    names = [column.lower() for column in windrow.columns]
    if sorted(names) != sorted(column.lower() for column in duck.columns):
        WRONG.append(f"{what}: columns {windrow.columns} in Windrow, {duck.columns} in DuckDB")
        return 0
    duck = duck.project(", ".join(f'"{name}"' for name in names))
    ours, theirs = windrow.fetchall(), duck.fetchall()
    if not ordered:
        ours.sort(key=key)
        theirs.sort(key=key)
    if len(ours) != len(theirs):
        left = set(map(key, ours)) ^ set(map(key, theirs))
        WRONG.append(f"{what}: {len(ours)} rows in Windrow, {len(theirs)} in DuckDB; for example {sorted(left, key=str)[:4]}")
        return 0
    differ = [(a, b) for a, b in zip(ours, theirs) if not all(map(same, a, b))]
    if differ:
        WRONG.append(f"{what}: {len(differ)} of {len(ours)} rows differ; the first: {differ[0][0]} in Windrow, {differ[0][1]} in DuckDB")
    if not ours:
        WRONG.append(f"{what}: no rows to compare")
    return len(ours)


WRONG = []


def main():
    folder, exports = map(Path, sys.argv[1:])
    db = duckdb.connect()
    db.execute("SET TimeZone = 'UTC'")
    for file in sorted(exports.glob("inputs/*.parquet")):
        db.execute(f"CREATE TABLE \"{file.stem}\" AS FROM read_parquet('{file}')")
    db.execute((folder / "check.duckdb.sql").read_text(encoding="utf-8"))
    views, queries, rows = sorted(exports.glob("views/*.parquet")), sorted(exports.glob("queries/*.sql")), 0
    for file in views:
        rows += compare(file.stem, db.read_parquet(str(file)), db.table(file.stem), ordered=False)
    for file in queries:
        text = file.read_text(encoding="utf-8")
        rows += compare(text, db.read_parquet(str(file.with_suffix(".parquet"))), db.sql(text), ordered="ORDER BY" in text)
    if WRONG:
        print("\n".join(WRONG), file=sys.stderr)
        raise SystemExit(1)
    print(f"{len(views)} views, {len(queries)} queries, {rows} rows")


if __name__ == "__main__":
    main()
