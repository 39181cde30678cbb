"""What ADBC, polars, pandas, SQLAlchemy and pyarrow.flight see of a server. Usage: query.py grpc://host:port

Each check prints its name and what failed; the exit status is that of all together."""

import base64
import json
import sys
import traceback

import adbc_driver_flightsql.dbapi as flightsql
import adbc_driver_manager
import pandas
import polars
import pyarrow as pa
import pyarrow.flight as flight
from flightsql import sqlalchemy as _  # Registers its dialect.
import sqlalchemy

url = sys.argv[1]
place = url.replace("grpc://", "grpc+tcp://")
checks = []


def check(f):
    checks.append(f)
    return f


def rows(cursor, sql, parameters=None):
    cursor.execute(sql, parameters)
    return cursor.fetchall()


def fails(cursor, sql, *words, parameters=None):
    try:
        cursor.execute(sql, parameters)
        cursor.fetchall()
    except adbc_driver_manager.Error as error:
        missing = [w for w in words if w not in str(error)]
        assert not missing, f"{missing} not in {error}"
        return
    raise AssertionError(f"no error: {sql}")


def same(found, wanted):
    assert found == wanted, f"{found!r}\n  instead of {wanted!r}"


@check
def statements_that_change_something(c):
    c.execute("CREATE STREAM s (k INT, text VARCHAR, x DOUBLE, ts TIMESTAMP, WATERMARK FOR ts)")
    c.execute("INSERT INTO s VALUES (1, 'a', 0.5, TIMESTAMP '2026-01-01 00:00:01')")
    c.execute("CREATE TABLE names (id INT, name VARCHAR)")
    c.adbc_statement.set_sql_query("INSERT INTO s VALUES (2, 'b', NULL, TIMESTAMP '2026-01-01 00:00:59')")
    same(c.adbc_statement.execute_update(), 1)
    c.execute("CREATE MATERIALIZED VIEW v AS SELECT window_start, window_end, count(*) AS n "
              "FROM TUMBLE(s, ts, INTERVAL '1 minute') GROUP BY window_start, window_end")
    fails(c, "CREATE STREAM s (k INT)", "\"s\" exists already", "OR REPLACE")


@check
def parameters(c):
    c.executemany("INSERT INTO s VALUES (?, ?, ?, ?)", [
        (3, "c", 1.5, pa.scalar(63_000_000, pa.timestamp("us")).as_py()),
        (4, None, None, pa.scalar(64_000_000, pa.timestamp("us")).as_py())])
    same(rows(c, "SELECT k, text FROM s WHERE k >= ? AND text IS NOT NULL ORDER BY k", (2,)),
         [(2, "b"), (3, "c")])
    same(rows(c, "SELECT k FROM s WHERE k = $1 OR text = $2 ORDER BY k", (1, "b")), [(1,), (2,)])
    # Many rows are one INSERT, whatever stands between the parameters.
    c.execute("CREATE STREAM many (k BIGINT NOT NULL, text VARCHAR, n INT)")
    c.executemany("INSERT INTO many (text, k) VALUES (upper(?) || 's', ? * 2)", [
        (f"row{k}" if k % 3 else None, k) for k in range(20_000)])
    same(rows(c, "SELECT count(*), sum(k), count(text), max(text), count(n) FROM many"),
         [(20_000, 399_980_000, 13_333, "ROW9998s", 0)])
    try:
        c.executemany("INSERT INTO many VALUES (?, ?, 1)", [(1, "a"), (None, "b")])
    except Exception as e:
        assert "NOT NULL" in str(e), e
    else:
        raise AssertionError("a NULL in a column that is NOT NULL")
    same(rows(c, "SELECT count(*) FROM many"), [(20_000,)])
    # Where more than VALUES stands there, it is executed for each row.
    c.executemany("INSERT INTO many (k) VALUES (?) LIMIT 1", [(-1,), (-2,)])
    c.executemany("INSERT INTO many (k) SELECT ?", [(-3,), (-4,)])
    same(rows(c, "SELECT count(*), sum(k) FROM many WHERE k < 0"), [(4, -10)])
    c.execute("DROP STREAM many")
    same(rows(c, "SELECT '?' AS q, \"k\" /* ? */ FROM s WHERE k = ? -- ?", (1,)), [("?", 1)])
    same(rows(c, "SELECT k FROM s WHERE k = ?", ("2",)), [(2,)])
    same(rows(c, "SELECT ? AS anything", ("x",)), [("x",)])
    same(rows(c, "SELECT k FROM s ORDER BY k LIMIT ?", (1,)), [(1,)])
    fails(c, "SELECT k FROM s WHERE k = ?", "parameter $1", "INT", parameters=("many",))
    fails(c, "SELECT k FROM s WHERE k = ? AND text = $2", "? and $1", parameters=(1, "x"))
    fails(c, "SELECT k FROM s WHERE k = ? AND text = ?", "2 parameters", parameters=(1,))
    c.execute("INSERT INTO names VALUES (?, ?)", (1, "one"))
    same(rows(c, "SELECT * FROM names"), [(1, "one")])


@check
def all_types(c):
    c.execute("""SELECT CAST(1 AS TINYINT) AS i8, CAST(2 AS SMALLINT) AS i16, CAST(3 AS INT) AS i32, 4 AS i64,
        CAST(5 AS TINYINT UNSIGNED) AS u8, CAST(6 AS SMALLINT UNSIGNED) AS u16, CAST(7 AS INT UNSIGNED) AS u32,
        CAST(8 AS BIGINT UNSIGNED) AS u64, CAST(1.5 AS REAL) AS f32, 2.5 AS f64, CAST('1.25' AS DECIMAL(10, 2)) AS d,
        'text' AS t, arrow_cast('view', 'Utf8View') AS view, arrow_cast('dict', 'Dictionary(Int32, Utf8)') AS dict,
        X'0102' AS b, true AS yes, DATE '2026-01-02' AS day, TIME '01:02:03' AS time,
        TIMESTAMP '2026-01-01 00:00:01.5' AS ts, TIMESTAMP '2026-01-01 00:00:01' AT TIME ZONE '+02:00' AS tz,
        INTERVAL '1 month 2 days' AS span, [1, 2, NULL] AS list, named_struct('a', 1, 'b', 'x') AS pair,
        NULL AS nothing, CAST(NULL AS INT) AS no_int""")
    table = c.fetch_arrow_table()
    row = table.to_pylist()[0]
    for name, wanted in [("i8", 1), ("i64", 4), ("u8", 5), ("u64", 8), ("f32", 1.5), ("f64", 2.5), ("t", "text"),
                         ("view", "view"), ("dict", "dict"), ("b", b"\x01\x02"), ("yes", True),
                         ("list", [1, 2, None]), ("pair", {"a": 1, "b": "x"}), ("nothing", None), ("no_int", None)]:
        same((name, row[name]), (name, wanted))
    same(str(row["d"]), "1.25")
    same(str(row["day"]), "2026-01-02")
    same(str(row["time"]), "01:02:03")
    same(pa.types.is_string(table.schema.field("view").type), True)
    same(pa.types.is_timestamp(table.schema.field("tz").type), True)


@check
def transactions(c):
    name = b"type.googleapis.com/arrow.flight.protocol.sql.ActionBeginTransactionRequest"
    action = flight.Action("BeginTransaction", b"\x0a" + bytes([len(name)]) + name)
    with flight.FlightClient(place) as client:
        try:
            list(client.do_action(action))
        except NotImplementedError as error:
            assert "there are no transactions" in str(error), error
        else:
            raise AssertionError("a transaction begins")


@check
def metadata(c):
    connection = c.connection
    info = connection.adbc_get_info()
    same(info["vendor_name"], "Windrow")
    assert "MATERIALIZED VIEW" in connection.adbc_get_table_types()
    objects = connection.adbc_get_objects(depth="all").read_all().to_pylist()
    tables = {(t["table_name"], t["table_type"]): [column["column_name"] for column in t["table_columns"]]
              for catalog in objects for schema in catalog["catalog_db_schemas"]
              for t in schema["db_schema_tables"] if schema["db_schema_name"] == "public"}
    same(tables[("s", "STREAM")], ["k", "text", "x", "ts"])
    same(tables[("v", "MATERIALIZED VIEW")], ["window_start", "window_end", "n"])
    assert ("names", "TABLE") in tables
    found = connection.adbc_get_objects(depth="tables", table_name_filter="nam_s").read_all().to_pylist()
    same([t["table_name"] for catalog in found for schema in catalog["catalog_db_schemas"]
          for t in schema["db_schema_tables"]], ["names"])
    same(connection.adbc_get_table_schema("s").names, ["k", "text", "x", "ts"])
    same(connection.adbc_current_catalog, "datafusion")
    same(connection.adbc_current_db_schema, "public")


@check
def statements_about(c):
    for sql in ["SHOW STREAMS", "DESCRIBE s", "SHOW CREATE v", "EXPLAIN SELECT * FROM s", "EXPLAIN ANALYZE SELECT * FROM s",
                "EXPLAIN SELECT * FROM s EMIT CHANGES", "EXPLAIN WHY NOT v", "SHOW TABLES", "VERIFY VIEW v",
                "SELECT * FROM windrow.queries", "SHOW ALL"]:
        assert rows(c, sql), sql
    c.execute("WAIT FOR v")
    c.execute("SET datafusion.execution.batch_size = 1000")
    same(rows(c, "SHOW datafusion.execution.batch_size")[0][1], "1000")
    with flightsql.connect(url) as other, other.cursor() as cursor:
        same(rows(cursor, "SHOW datafusion.execution.batch_size")[0][1], "8192")


@check
def errors(c):
    fails(c, "SELECT nope FROM s", "nope")
    fails(c, "SELECT * FROM ss", "\"ss\"", "line 1: SELECT * FROM ss", "^^", "hint: SHOW TABLES")
    fails(c, "SELEC 1", "SELECT")
    fails(c, "SELECT 1; SELECT 2", "more than one statement")
    fails(c, "SELECT 1 / (k - 1) FROM s", "ivide")
    fails(c, "-- nothing", "no statement")


@check
def many_rows(c):
    c.execute("SELECT value AS n, value % 7 AS k, 'text ' || value AS t FROM generate_series(1, 1000000)")
    table = c.fetch_arrow_table()
    same(table.num_rows, 1_000_000)
    same(sum(table["n"].to_pylist()), 500_000_500_000)


@check
def frames(c):
    frame = polars.read_database("SELECT k, text FROM s ORDER BY k", connection=c.connection)
    same(frame["k"].to_list(), [1, 2, 3, 4])
    frame = pandas.read_sql("SELECT k, x FROM s ORDER BY k", c.connection)
    same(list(frame["k"]), [1, 2, 3, 4])


@check
def plain_flight(c):
    client = flight.connect(place)
    names = [f.descriptor.path[0].decode() for f in client.list_flights()]
    same([n for n in names if n in ("names", "s", "v")], ["names", "s", "v"])
    descriptor = flight.FlightDescriptor.for_path("s")
    same(client.get_schema(descriptor).schema.names, ["k", "text", "x", "ts"])
    info = client.get_flight_info(descriptor)
    same(client.do_get(info.endpoints[0].ticket).read_all().num_rows, 4)
    for bad in [lambda: client.get_flight_info(flight.FlightDescriptor.for_path("none")),
                lambda: client.get_flight_info(flight.FlightDescriptor.for_command(b"\xff\xfegarbage")),
                lambda: client.do_get(flight.Ticket(b"garbage")).read_all(),
                lambda: list(client.do_action(flight.Action("Nonsense", b""))),
                lambda: client.get_flight_info(flight.FlightDescriptor.for_command(command("CommandStatementQuery", b"\x0f\x0f")))]:
        try:
            bad()
        except (pa.ArrowInvalid, pa.ArrowKeyError, flight.FlightError) as error:
            assert "panic" not in str(error), error
            assert "nternal" not in type(error).__name__, repr(error)
        else:
            raise AssertionError("no error")


def field(number, data):
    """A protobuf field of bytes."""
    def varint(n):
        out = b""
        while n > 127:
            out += bytes([n & 127 | 128])
            n >>= 7
        return out + bytes([n])
    return varint(number << 3 | 2) + varint(len(data)) + data


def command(name, body):
    url = f"type.googleapis.com/arrow.flight.protocol.sql.{name}".encode()
    return field(1, url) + field(2, body)


def follow(client, sql):
    descriptor = flight.FlightDescriptor.for_command(command("CommandStatementQuery", field(1, sql.encode())))
    info = client.get_flight_info(descriptor)
    return info, client.do_get(info.endpoints[0].ticket)


@check
def subscriptions_resume(c):
    seen, last = [], 0
    for minute in range(2, 6):
        c.execute("INSERT INTO s VALUES (?, 'm', 0, ?)", (minute, pa.scalar((1767312000 + minute * 60) * 1_000_000, pa.timestamp("us")).as_py()))
    c.execute("INSERT INTO s VALUES (9, 'm', 0, TIMESTAMP '2026-02-01 00:00:00')")
    c.execute("WAIT FOR v")
    total = rows(c, "SELECT count(*) FROM v")[0][0]
    assert total >= 4, total
    while len(seen) < total:
        client = flight.connect(place)
        info, reader = follow(client, f"SUBSCRIBE TO v AFTER {last}")
        chunk = reader.read_chunk()
        if chunk.data.num_rows:
            beside = json.loads(chunk.app_metadata.to_pybytes())
            seen += chunk.data.to_pylist()
            last = beside["sequence"]
            same(last, len(seen))
            same(beside["window_end"], max(chunk.data["window_end"]).as_py().isoformat())
            assert beside["window_start"] <= beside["window_end"], beside
        # Gone in the middle.
        reader.cancel()
        client.close()
    c.execute("SELECT * FROM v ORDER BY window_end")
    same(sorted(map(str, seen)), sorted(map(str, c.fetch_arrow_table().to_pylist())))


CANCELLED, NOT_CANCELLABLE = 1, 3


def cancel(client, info):
    """The status that CancelFlightInfo answers with (pyarrow has no call for it)."""
    [answer] = client.do_action(flight.Action("CancelFlightInfo", field(1, info.serialize())))
    body = answer.body.to_pybytes()
    assert body[:1] == b"\x08", body
    return body[1]


@check
def sqlalchemy_knows_tables_and_parameters(c):
    c.execute("CREATE STREAM people (id BIGINT, name VARCHAR)")
    c.execute("INSERT INTO people VALUES (1, 'a'), (2, 'b')")
    engine = sqlalchemy.create_engine(url.replace("grpc://", "datafusion+flightsql://") + "?insecure=true")
    inspector = sqlalchemy.inspect(engine)
    assert "public" in inspector.get_schema_names()
    assert "people" in inspector.get_table_names()
    table = sqlalchemy.Table("people", sqlalchemy.MetaData(), autoload_with=engine)
    same([column.name for column in table.columns], ["id", "name"])
    with engine.connect() as connection:
        query = sqlalchemy.select(table.c.id, table.c.name).where(table.c.id == 2)
        same(connection.execute(query).fetchall(), [(2, "b")])


@check
def continuous_queries_are_cancelled(c):
    client = flight.connect(place)
    info, reader = follow(client, "SELECT k FROM s EMIT CHANGES")
    first = reader.read_chunk()
    assert json.loads(first.app_metadata.to_pybytes())["sequence"] == first.data.num_rows
    same(cancel(client, info), CANCELLED)
    try:
        while True:
            reader.read_chunk()
    except flight.FlightCancelledError as error:
        assert "cancelled" in str(error), error
    same(cancel(client, info), NOT_CANCELLABLE)


failed = 0
with flightsql.connect(url) as connection:
    for f in checks:
        try:
            with connection.cursor() as cursor:
                f(cursor)
            print("ok", f.__name__)
        except Exception:
            failed += 1
            print("FAILED", f.__name__)
            traceback.print_exc(file=sys.stdout)
        sys.stdout.flush()
sys.exit(failed > 0)
