"""The other end of Avro, for the tests: fastavro and polars write files, fastavro reads those of a sink, and confluent-kafka's serializer
writes messages by the schemas of a registry, which is here.

A command as its arguments: `files DIR` writes files, `read FILE …` prints their records as JSON, `single SCHEMA RECORD` prints
messages of the single-object encoding in hex."""

import datetime as dt
import gzip
import io
import json
import sys
import threading
import uuid
from decimal import Decimal
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import fastavro
import polars as pl

UTC = dt.timezone.utc
SCHEMA = {
    "type": "record",
    "name": "Row",
    "namespace": "org.example",
    "fields": [
        {"name": "id", "type": "long"},
        {"name": "small", "type": "int"},
        {"name": "x", "type": "double"},
        {"name": "f", "type": ["null", "float"], "default": None},
        {"name": "text", "type": ["null", "string"]},
        {"name": "data", "type": ["bytes", "null"]},
        {"name": "yes", "type": "boolean"},
        {"name": "day", "type": {"type": "int", "logicalType": "date"}},
        {"name": "clock", "type": {"type": "long", "logicalType": "time-micros"}},
        {"name": "ms", "type": {"type": "long", "logicalType": "timestamp-millis"}},
        {"name": "us", "type": {"type": "long", "logicalType": "timestamp-micros"}},
        {"name": "local", "type": ["null", {"type": "long", "logicalType": "local-timestamp-micros"}]},
        {"name": "price", "type": {"type": "bytes", "logicalType": "decimal", "precision": 20, "scale": 3}},
        {"name": "fixed", "type": {"type": "fixed", "name": "F", "size": 8, "logicalType": "decimal", "precision": 18, "scale": 2}},
        {"name": "u", "type": {"type": "string", "logicalType": "uuid"}},
        {"name": "kind", "type": {"type": "enum", "name": "Kind", "symbols": ["RED", "GREEN"]}},
        {"name": "list", "type": {"type": "array", "items": ["null", "long"]}},
        {"name": "map", "type": {"type": "map", "values": "int"}},
        {"name": "nested", "type": {"type": "record", "name": "Nested", "fields": [
            {"name": "a", "type": "int"}, {"name": "kinds", "type": {"type": "array", "items": "Kind"}}]}},
    ],
}


def row(n, **other):
    value = {
        "id": n, "small": -n, "x": n / 4, "f": None, "text": f"ü{n}", "data": b"\x00\xff", "yes": n % 2 == 0,
        "day": dt.date(1969, 12, 31), "clock": dt.time(23, 59, 59, 999999),
        "ms": dt.datetime(2026, 1, 1, 0, 0, 0, 123000, UTC), "us": dt.datetime(1901, 1, 1, 0, 0, 0, 1, UTC),
        "local": dt.datetime(2026, 1, 1, 12), "price": Decimal("-12345678901234567.891"), "fixed": Decimal("0.05"),
        "u": uuid.UUID(int=n), "kind": "GREEN", "list": [1, None, -(2**63)], "map": {"k": 1},
        "nested": {"a": 7, "kinds": ["RED", "GREEN"]},
    }
    return value | other


def files(directory):
    limits = row(2**63 - 1, small=-(2**31), x=1.7976931348623157e308, text=None, data=None, local=None, list=[], map={})
    with open(f"{directory}/types.avro", "wb") as out:
        fastavro.writer(out, SCHEMA, [row(1), limits], codec="deflate")
    for codec in ["null", "deflate"]:
        schema = {"type": "record", "name": "r", "fields": [{"name": "n", "type": "long"}, {"name": "s", "type": "string"}]}
        with open(f"{directory}/many-{codec}.avro", "wb") as out:
            fastavro.writer(out, schema, ({"n": n, "s": f"s{n}"} for n in range(50_000)), codec=codec, sync_interval=8_000)
    with open(f"{directory}/many-deflate.avro", "rb") as plain, gzip.open(f"{directory}/packed.avro.gz", "wb") as packed:
        packed.write(plain.read())
    frame = pl.DataFrame({"n": range(50_000), "s": [f"s{n}" for n in range(50_000)]})
    frame.write_avro(f"{directory}/many-polars.avro", compression="snappy")


def read(*paths):
    records = []
    for path in paths:
        with open(path, "rb") as file:
            records += list(fastavro.reader(file))
    print(json.dumps(records, default=str, ensure_ascii=False))


def single(schema, *records):
    schema = fastavro.parse_schema(json.loads(schema))
    for record in records:
        out = io.BytesIO()
        fastavro.schemaless_writer(out, schema, json.loads(record))
        head = bytes.fromhex("c301") + bytes.fromhex(fastavro.schema.fingerprint(
            fastavro.schema.to_parsing_canonical_form(schema), "CRC-64-AVRO"))
        print((head + out.getvalue()).hex())


class Registry:
    """What confluent-kafka's client and Windrow ask a schema registry. `login`: as in user:password."""

    def __init__(self, login=None):
        self.schemas, self.subjects, self.login, self.away = [], {}, login, False
        registry = self

        class Handler(BaseHTTPRequestHandler):
            def answer(self, status, body):
                text = json.dumps(body).encode()
                self.send_response(status)
                self.send_header("content-type", "application/vnd.schemaregistry.v1+json")
                self.send_header("content-length", str(len(text)))
                self.end_headers()
                self.wfile.write(text)

            def do_GET(self):
                import base64
                wanted = registry.login and "Basic " + base64.b64encode(registry.login.encode()).decode()
                if registry.away:
                    return self.answer(503, {"error_code": 50001})
                if wanted and self.headers.get("authorization") != wanted:
                    return self.answer(401, {"error_code": 40101})
                match self.path.split("?")[0].strip("/").split("/"):
                    case ["schemas", "ids", id] if int(id) <= len(registry.schemas):
                        self.answer(200, {"schema": registry.schemas[int(id) - 1]})
                    case ["subjects", subject, "versions", "latest"] if subject in registry.subjects:
                        ids = registry.subjects[subject]
                        schema = registry.schemas[ids[-1] - 1]
                        self.answer(200, {"subject": subject, "version": len(ids), "id": ids[-1], "schema": schema})
                    case _:
                        self.answer(404, {"error_code": 40403, "message": "not found"})

            def do_POST(self):
                schema = json.loads(self.rfile.read(int(self.headers["content-length"])))["schema"]
                subject = self.path.split("?")[0].strip("/").split("/")[1]
                self.answer(200, {"id": registry.register(subject, schema), "subject": subject, "version": 1, "schema": schema})

            def log_message(self, *_):
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=self.server.serve_forever, daemon=True).start()
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}"

    def register(self, subject, schema):
        if schema not in self.schemas:
            self.schemas.append(schema)
        id = self.schemas.index(schema) + 1
        ids = self.subjects.setdefault(subject, [])
        if id not in ids:
            ids.append(id)
        return id

    def messages(self, topic, schema, records):
        """The messages of confluent-kafka's serializer."""
        from confluent_kafka.schema_registry import SchemaRegistryClient
        from confluent_kafka.schema_registry.avro import AvroSerializer
        from confluent_kafka.serialization import MessageField, SerializationContext
        login = {"basic.auth.user.info": self.login} if self.login else {}
        serializer = AvroSerializer(SchemaRegistryClient({"url": self.url, **login}), json.dumps(schema))
        return [serializer(record, SerializationContext(topic, MessageField.VALUE)) for record in records]


if __name__ == "__main__":
    globals()[sys.argv[1]](*sys.argv[2:])
