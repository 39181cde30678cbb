#!/usr/bin/env python3
"""Runs a folder of this directory live: a server, a producer that pushes the rows of its streams over HTTP, and a client that prints a
view as its rows come.

    python3 sql/live.py games leaders
    python3 sql/live.py service-assurance alerts --speed 3600 --seconds 60

What the generators of run.sql make is written to files first. The streams of the server have no connector: the producer sends these rows,
in their order, `--speed` times as fast as their times say. Needs the program windrow (in the PATH, or in $WINDROW) and
`pip install adbc-driver-flightsql pyarrow`. Run it from the root of the repository; everything else is in a temporary directory.
"""

import argparse
import datetime
import json
import os
import re
import socket
import subprocess
import sys
import tempfile
import threading
import time
import urllib.error
import urllib.request
from pathlib import Path

import adbc_driver_flightsql.dbapi as flightsql

WINDROW = os.environ.get("WINDROW", "windrow")
SQL = Path(__file__).parent
TIMES = ("sent", "ts", "at", "taken", "received")


def statements(folder):
    """The statements of run.sql, without comments."""
    text = re.sub(r"--.*$", "", (SQL / folder / "run.sql").read_text(encoding="utf-8"), flags=re.MULTILINE)
    # A server has a directory of its own for relative paths.
    text = text.replace("'sql/", f"'{SQL.resolve()}/")
    return [statement.strip() for statement in text.split(";") if statement.strip()]


def generated(statement):
    """The name of the stream, if a generator makes it."""
    found = re.match(r"CREATE STREAM (\w+)", statement)
    return found.group(1) if found and "connector = 'datagen'" in statement else None


def pushed(statement):
    """The stream with the same columns, filled by its producers."""
    name, rest = re.match(r"CREATE STREAM (\w+) \((.*)\) WITH \(", statement, flags=re.DOTALL).groups()
    columns, depth, start = [], 0, 0
    for i, letter in enumerate(rest + ","):
        depth += {"(": 1, ")": -1}.get(letter, 0)
        if letter == "," and depth == 0:
            columns.append(re.sub(r"\s+GENERATED ALWAYS AS.*", "", rest[start:i].strip(), flags=re.DOTALL))
            start = i + 1
    return f"CREATE STREAM {name} ({', '.join(columns)})"


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


def row_time(row):
    """When a row is to be sent, in seconds; that of the row before, where it has no time."""
    for name in TIMES:
        if row.get(name):
            return datetime.datetime.fromisoformat(row[name]).replace(tzinfo=datetime.timezone.utc).timestamp()
    return None


def produce(stream, file, url, begin, speed):
    """Sends the rows of a file when they are due, some of them in each request. The numbers let a request be sent again."""
    with open(file, encoding="utf-8") as lines:
        rows, due = [], begin
        for line in lines:
            due = row_time(json.loads(line)) or due
            rows.append((due, line))
    # Rows out of order are sent in the order in which the generator made them.
    started, sent, sequence = time.monotonic(), 0, 0
    while sent < len(rows):
        now = begin + (time.monotonic() - started) * speed
        until = sent
        while until < len(rows) and until - sent < 5000 and rows[until][0] <= now:
            until += 1
        if until == sent:
            time.sleep(0.05)
            continue
        sequence += 1
        body = "".join(line for _, line in rows[sent:until]).encode()
        headers = {"content-type": "application/x-ndjson", "windrow-producer": f"live-{stream}", "windrow-sequence": str(sequence)}
        request = urllib.request.Request(f"{url}/v1/streams/{stream}", body, headers)
        while True:
            try:
                urllib.request.urlopen(request, timeout=60).read()
                break
            except urllib.error.HTTPError as error:
                print(f"{stream}: {error.read().decode()}", file=sys.stderr)
                return
            except OSError:
                # The server is away: the same number again.
                time.sleep(0.5)
        sent = until


def connect(url):
    for _ in range(300):
        connection = flightsql.connect(url, autocommit=True)
        try:
            with connection.cursor() as cursor:
                cursor.execute("SELECT 1")
            return connection
        except flightsql.Error:
            connection.close()
            time.sleep(0.1)
    raise SystemExit("the server does not answer")


def follow(url, view, until):
    """Prints the rows of a view as they come."""
    with connect(url) as connection, connection.cursor() as cursor:
        cursor.execute(f"SUBSCRIBE TO {view} AFTER 0")
        for batch in cursor.fetch_record_batch():
            for row in batch.to_pylist():
                print(" | ".join(f"{value:.2f}" if isinstance(value, float) else str(value) for value in row.values()), flush=True)
            if time.monotonic() > until:
                return


def main():
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("folder", choices=sorted(file.parent.name for file in SQL.glob("*/run.sql")))
    arguments.add_argument("view", help="a materialized view of its run.sql")
    arguments.add_argument("--speed", type=float, default=600, help="times real time (600: an hour in six seconds)")
    arguments.add_argument("--seconds", type=float, default=60, help="how long to run")
    given = arguments.parse_args()
    until = time.monotonic() + given.seconds
    all_of_them = statements(given.folder)
    with tempfile.TemporaryDirectory() as directory:
        streams = {name: Path(directory) / f"{name}.ndjson" for name in map(generated, all_of_them) if name}
        making = [s for s in all_of_them if generated(s)] + [f"COPY {n} TO '{f}' (FORMAT json)" for n, f in streams.items()]
        script = Path(directory) / "make.sql"
        script.write_text(";\n".join(making) + ";\n", encoding="utf-8")
        subprocess.run([WINDROW, "-q", "run", script], check=True)
        flight, http = free_port(), free_port()
        command = [WINDROW, "serve", "--data-dir", f"{directory}/data", "--flight", f"127.0.0.1:{flight}", "--http", f"127.0.0.1:{http}"]
        command += ["--allow-path", str(SQL.resolve())]
        server = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        try:
            with connect(f"grpc://127.0.0.1:{flight}") as connection, connection.cursor() as cursor:
                for statement in all_of_them:
                    if statement.startswith("CREATE "):
                        cursor.execute(pushed(statement) if generated(statement) else statement)
            first = []
            for file in streams.values():
                with open(file, encoding="utf-8") as lines:
                    first += [t for t in (row_time(json.loads(line)) for _, line in zip(range(100), lines)) if t]
            for name, file in streams.items():
                work = (name, file, f"http://127.0.0.1:{http}", min(first), given.speed)
                threading.Thread(target=produce, args=work, daemon=True).start()
            follow(f"grpc://127.0.0.1:{flight}", given.view, until)
        except KeyboardInterrupt:
            pass
        finally:
            server.terminate()
            server.wait()


if __name__ == "__main__":
    sys.exit(main())
