"""A server of WebSockets (PyPI: websockets) and of server-sent events, for the tests. Each connection to a path gets what is sent to it."""

import asyncio
import threading

import websockets
from serve import free_port, serve
from websockets.asyncio.server import serve as serve_sockets


class Server:
    def __init__(self):
        self.port, self.events_port = free_port(), free_port()
        self.address = f"127.0.0.1:{self.port}"
        self.loop = asyncio.new_event_loop()
        threading.Thread(target=self.loop.run_forever, daemon=True).start()
        self.running = None

    def run(self, what):
        return asyncio.run_coroutine_threadsafe(what, self.loop).result(60)

    def start(self, token=None):
        """Starts both; `token`: needed in the header Authorization."""
        self.token, self.sockets, self.streams, self.heard, self.ids = token, set(), set(), [], []
        self.run(self.begin())

    async def begin(self):
        self.changed = asyncio.Condition()
        self.running = [
            await serve_sockets(self.socket, "127.0.0.1", self.port, process_request=self.check),
            await asyncio.start_server(self.events, "127.0.0.1", self.events_port),
        ]

    def check(self, connection, request):
        if self.token and request.headers.get("Authorization") != f"Bearer {self.token}":
            return connection.respond(401, "no")

    async def note(self):
        async with self.changed:
            self.changed.notify_all()

    async def socket(self, socket):
        self.sockets.add(socket)
        try:
            async for message in socket:
                self.heard.append(message)
                await self.note()
        except websockets.ConnectionClosed:
            pass
        finally:
            self.sockets.discard(socket)

    async def events(self, reader, writer):
        lines = (await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
        headers = dict(line.lower().split(": ", 1) for line in lines[1:] if line)
        if self.token and headers.get("authorization") != f"bearer {self.token}":
            writer.write(b"HTTP/1.1 401 no\r\ncontent-length: 0\r\nconnection: close\r\n\r\n")
            return writer.close()
        self.ids.append(headers.get("last-event-id"))
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\nconnection: close\r\n\r\n: hello\n\n")
        self.streams.add(writer)
        await self.note()

    def send(self, messages):
        """Sends messages to all sockets: text, or bytes in hex."""
        async def send():
            for message in messages:
                message = bytes.fromhex(message["hex"]) if isinstance(message, dict) else message
                for socket in list(self.sockets):
                    await socket.send(message)
        self.run(send())

    def emit(self, text):
        """Writes to all streams of events."""
        async def emit():
            for writer in list(self.streams):
                writer.write(text.encode())
                await writer.drain()
        self.run(emit())

    def until_heard(self, count):
        """Messages that sockets have sent, once there are so many."""
        async def wait():
            async with self.changed:
                await asyncio.wait_for(self.changed.wait_for(lambda: len(self.heard) >= count), 60)
        self.run(wait())
        return self.heard

    def until_streams(self, count):
        """The ids with which streams of events have begun, once there are so many."""
        async def wait():
            async with self.changed:
                await asyncio.wait_for(self.changed.wait_for(lambda: len(self.ids) >= count), 60)
        self.run(wait())
        return self.ids

    def drop(self):
        """Ends all connections."""
        async def drop():
            for writer in self.streams:
                writer.transport.abort()
            for socket in list(self.sockets):
                socket.transport.abort()
            self.streams = set()
        self.run(drop())

    def kill(self):
        if self.running:
            self.drop()
            async def stop():
                for server in self.running:
                    server.close()
            self.run(stop())
            self.running = None

    def port_of_events(self):
        return str(self.events_port)


if __name__ == "__main__":
    serve(Server())
