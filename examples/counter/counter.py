"""A counter that outlives its process: an actor in Python, standard library only.

GET /        counts one up and answers with the count
POST /reset  back to 0
GET /sleep   asks to sleep; the next request wakes the actor, in a new process, with the same count
/ws          a WebSocket: each text message counts one up and comes back with the count
"""

import base64
import hashlib
import http.client
import os
import signal
import socket
import struct
import sys
import threading
from http.server import BaseHTTPRequestHandler
from socketserver import ThreadingMixIn, UnixStreamServer

TOKEN = open(os.environ["ACTOR_TOKEN_FILE"]).read().strip()
TEXT, CLOSE, PING, PONG = 1, 8, 9, 10


class ApiConnection(http.client.HTTPConnection):
    def connect(self):
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.connect(os.environ["ACTOR_API_SOCKET"])


def api(method, path, body=b""):
    """Calls the actor API. A status of 400 or more is an error, but 404 means that there is nothing."""
    connection = ApiConnection("actor-api")
    try:
        connection.request(method, path, body, {"Authorization": f"Bearer {TOKEN}"})
        response = connection.getresponse()
        content = response.read()
    finally:
        connection.close()
    if response.status == 404:
        return None
    if response.status >= 400:
        raise OSError(f"{method} {path}: {response.status} {content.decode(errors='replace')}")
    return content


class Counter:
    """The count, as stored. Changes run one after another: each is on disk at the gateway before its answer leaves."""

    def __init__(self):
        self.lock = threading.Lock()
        self.count = int(api("GET", "/v1/kv/count") or 0)

    def change(self, compute):
        with self.lock:
            value = compute(self.count)
            api("PUT", "/v1/kv/count", str(value).encode())
            self.count = value
            return value


def sleep():
    api("POST", "/v1/sleep")
    return 202, "going to sleep"


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self):
        path = self.path.split("?")[0]
        if path == "/ws" and self.headers.get("upgrade", "").lower() == "websocket":
            self.websocket()
        elif path == "/":
            self.answer(lambda: (200, counter.change(lambda count: count + 1)))
        elif path == "/sleep":
            self.answer(sleep)
        else:
            self.answer(lambda: (404, "there is /, /reset (POST), /sleep and /ws"))

    def do_POST(self):
        self.rfile.read(int(self.headers.get("content-length", 0)))
        if self.path.split("?")[0] == "/reset":
            self.answer(lambda: (200, counter.change(lambda count: 0)))
        else:
            self.answer(lambda: (404, "there is /, /reset (POST), /sleep and /ws"))

    def answer(self, work):
        try:
            status, text = work()
        except OSError as error:
            print(error, file=sys.stderr)
            status, text = 503, error
        content = f"{text}\n".encode()
        self.send_response(status)
        self.send_header("content-type", "text/plain")
        self.send_header("content-length", str(len(content)))
        # So that no thread waits for another request when it is time to stop.
        self.send_header("connection", "close")
        self.end_headers()
        self.wfile.write(content)

    def websocket(self):
        """The server side of WebSockets (RFC 6455), as far as an actor needs it: whole frames of up to 1 MiB."""
        key = self.headers["sec-websocket-key"] + "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
        self.send_response_only(101)
        self.send_header("upgrade", "websocket")
        self.send_header("connection", "upgrade")
        self.send_header("sec-websocket-accept", base64.b64encode(hashlib.sha1(key.encode()).digest()).decode())
        self.end_headers()
        self.close_connection = True
        sockets.add(self)
        try:
            while True:
                opcode, payload = self.read_frame()
                if opcode == CLOSE:
                    return self.send_frame(CLOSE, payload[:2])
                if opcode == PING:
                    self.send_frame(PONG, payload)
                elif opcode == TEXT:
                    count = counter.change(lambda count: count + 1)
                    self.send_frame(TEXT, f"{count} ".encode() + payload)
        except ValueError as error:
            self.send_frame(CLOSE, struct.pack("!H", error.args[0]))
        except OSError as error:
            print(error, file=sys.stderr)
        finally:
            sockets.discard(self)

    def read_frame(self):
        first, second = self.read_exactly(2)
        length = second & 127
        if length == 126:
            (length,) = struct.unpack("!H", self.read_exactly(2))
        elif length == 127:
            (length,) = struct.unpack("!Q", self.read_exactly(8))
        if length > 1024 * 1024:
            raise ValueError(1009)
        # Frames of clients are whole here (FIN) and always masked.
        if not first & 128 or not second & 128:
            raise ValueError(1002)
        mask = self.read_exactly(4)
        payload = self.read_exactly(length)
        return first & 15, bytes(byte ^ mask[i % 4] for i, byte in enumerate(payload))

    def read_exactly(self, count):
        content = self.rfile.read(count)
        if len(content) < count:
            raise ConnectionError("the client went away")
        return content

    def send_frame(self, opcode, payload):
        length = len(payload)
        if length < 126:
            head = struct.pack("!BB", 128 | opcode, length)
        elif length < 65536:
            head = struct.pack("!BBH", 128 | opcode, 126, length)
        else:
            head = struct.pack("!BBQ", 128 | opcode, 127, length)
        self.wfile.write(head + payload)

    def log_message(self, *_):
        """The gateway and the runner know about requests already."""


class Server(ThreadingMixIn, UnixStreamServer):
    request_queue_size = 128


def stop(*_):
    """Asked to stop: let go of the sockets, finish what is being answered."""
    for handler in list(sockets):
        try:
            handler.send_frame(CLOSE, struct.pack("!H", 1001))
            handler.connection.shutdown(socket.SHUT_RDWR)
        except OSError:
            pass
    # From another thread: it waits for the loop that this one runs.
    threading.Thread(target=server.shutdown).start()


sockets = set()
counter = Counter()
server = Server(os.environ["ACTOR_SOCKET"], Handler)
signal.signal(signal.SIGTERM, stop)
# Ready as soon as the socket accepts.
server.serve_forever(poll_interval=0.05)
server.server_close()
