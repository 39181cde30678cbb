"""Rows from Python: adbc_ingest in all its modes, and DoPut by the name of the stream."""

import json
import sys

import adbc_driver_flightsql.dbapi as flightsql
import pyarrow as pa
import pyarrow.flight as flight

url = sys.argv[1]
table = pa.table({"k": ["a", "b", None], "n": [1, 2, 3]})


def refused(words, act):
    try:
        act()
    except Exception as error:  # Each driver has its own kinds.
        assert words in str(error), error
        return
    raise AssertionError(f"not refused: {words}")


with flightsql.connect(url, autocommit=True) as connection, connection.cursor() as cursor:
    ingest = cursor.adbc_ingest
    refused("made", lambda: ingest("made", table, mode="append"))
    assert ingest("made", table, mode="create") == 3
    refused("made", lambda: ingest("made", table, mode="create"))
    assert ingest("made", table, mode="append") == 3
    assert ingest("made", table.to_batches(), mode="create_append") == 3
    assert ingest("other", table, mode="create_append") == 3
    assert ingest("replaced", table, mode="create") == 3
    assert ingest("replaced", table.slice(1), mode="replace") == 2
    wrong = pa.table({"k": ["x"], "m": [1]})
    refused('no column "m"', lambda: ingest("made", wrong, mode="append"))
    # The driver remembers both for the cursor.
    refused("elsewhere", lambda: ingest("t", table, mode="create", catalog_name="elsewhere"))
with flightsql.connect(url, autocommit=True) as connection, connection.cursor() as cursor:
    temporary = lambda: cursor.adbc_ingest("t", table, mode="create", temporary=True)
    refused("temporary", temporary)

client = flight.connect(url)


def put(batches):
    """What is answered to batches of producer "python": (number, rows) each."""
    descriptor = flight.FlightDescriptor.for_path("made")
    writer, reader = client.do_put(descriptor, table.schema)
    answers = []
    with writer:
        for sequence, rows in batches:
            said = json.dumps({"producer": "python", "sequence": sequence}).encode()
            writer.write_with_metadata(rows.to_batches()[0], said)
            answers.append(json.loads(reader.read().to_pybytes()))
        writer.done_writing()
    return answers


new = {"bad": 0, "repeated": False}
assert put([(1, table), (2, table.slice(2))]) == [
    {"sequence": 1, "rows": 3, **new},
    {"sequence": 2, "rows": 1, **new},
]
again = {"rows": 0, "bad": 0, "repeated": True}
assert put([(2, table.slice(2)), (3, table)]) == [
    {"sequence": 2, **again},
    {"sequence": 3, "rows": 3, **new},
]
refused("batch 4 is next", lambda: put([(7, table)]))
