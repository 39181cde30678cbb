"""Serves the tests: one command of JSON per line in, one line out (`ok` with an answer, or `failed:`), until stdin ends."""

import json
import socket
import sys


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


def serve(server):
    """`server` has `address`, a method for each command, and `kill`."""
    print(server.address, flush=True)
    try:
        for line in sys.stdin:
            command = json.loads(line)
            try:
                answer = getattr(server, command.pop("do"))(**command)
                text = answer if isinstance(answer, str) else json.dumps(answer)
                print("ok" if answer is None else f"ok {text}", flush=True)
            except Exception as error:
                print("failed:", repr(error).replace("\n", " "), flush=True)
    finally:
        server.kill()
