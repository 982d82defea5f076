"""The behaviour suite's app: plain HTTP/1.1 and WebSockets on a Unix socket, a port or an inherited socket.

Knows nothing of hooks unless HOOKS is set, and then records them in the file that it names.
"""
import base64, hashlib, json, os, signal, socket, socketserver, struct, subprocess, sys, threading, time
from http.server import BaseHTTPRequestHandler

release = threading.Event()
arrived = threading.Event()
waiting = threading.Event()
closes = []


class App(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self):
        route, _, query = self.path.partition("?")
        getattr(self, "get_" + route.strip("/").replace("/", "_"), self.missing)(query)

    def do_POST(self):
        if self.path == "/_actor":
            return self.hook()
        body = self.read_body()
        if self.path == "/echo":
            self.answer(body)
        elif self.path == "/length":
            self.answer(b"%d" % len(body))
        else:
            self.missing("")

    def do_HEAD(self):
        self.send_response(200)
        self.send_header("Content-Length", "1234")
        self.end_headers()

    def get_ping(self, _):
        self.answer(b"pong")

    def get_bytes(self, query):
        self.answer(b"x" * int(query))

    def get_cookies(self, _):
        self.send_response(200)
        self.send_header("Set-Cookie", "a=1")
        self.send_header("Set-Cookie", "b=2")
        self.send_header("Content-Length", "0")
        self.end_headers()

    def get_headers(self, _):
        self.answer(json.dumps([[k, v] for k, v in self.headers.items()]).encode())

    def get_environment(self, _):
        self.answer(json.dumps(dict(os.environ)).encode())

    def get_pid(self, _):
        self.answer(b"%d" % os.getpid())

    def get_stream(self, _):
        self.chunked()
        self.chunk(b"first")
        release.wait()
        self.chunk(b"second")
        self.chunk(b"")

    def get_broken(self, _):
        self.chunked()
        self.chunk(b"first")
        release.wait()
        self.close_connection = True
        self.connection.shutdown(socket.SHUT_RDWR)

    def get_slow(self, _):
        arrived.set()
        release.wait()
        self.answer(b"late")

    def get_arrived(self, _):
        arrived.wait()
        self.answer(b"yes")

    def get_release(self, _):
        release.set()
        self.answer(b"")

    def get_silent(self, _):
        self.close_connection = True
        self.connection.shutdown(socket.SHUT_RDWR)

    def get_nonsense(self, _):
        self.close_connection = True
        self.wfile.write(b"this is no HTTP\r\n\r\n")

    def get_wrong_length(self, _):
        self.send_response(200)
        self.send_header("Content-Length", "100")
        self.end_headers()
        self.wfile.write(b"short")
        self.close_connection = True

    def get_crash(self, _):
        for line in range(30):
            print("line", line, file=sys.stderr)
        print("\x1b[31mgoodbye\x07", file=sys.stderr, flush=True)
        os._exit(3)

    def get_leave(self, _):
        os._exit(0)

    def get_suicide(self, _):
        os.kill(os.getpid(), signal.SIGKILL)

    def get_grandchild(self, _):
        child = subprocess.Popen(["sleep", "1000"])
        self.answer(b"%d" % child.pid)

    def get_socket(self, query):
        self.websocket(query)

    def missing(self, _):
        self.answer(b"no such route", 404)

    def hook(self):
        body, file = self.read_body(), os.environ.get("HOOKS")
        event = self.headers.get("Actor-Event")
        if event in ("open", "message", "close"):
            return self.socket_event(event, body)
        if file is None:
            return self.answer(b"", 404)
        with open(file, "a") as out:
            out.write(json.dumps({k.lower(): v for k, v in self.headers.items()}) + "\n")
        if event == "start" and os.environ.get("START") == "refuse":
            return self.answer(b"the license has expired", 500)
        if event == "start" and os.environ.get("START") == "hang":
            threading.Event().wait()
        self.answer(b"")

    def socket_event(self, event, body):
        ours = lambda name: self.headers.get("Actor-Ws-" + name)
        seq, attempt = ours("Seq"), self.headers.get("Actor-Attempt")
        if event == "open":
            _, _, query = ours("Path").partition("?")
            if query == "refuse":
                return self.answer(b"no", 403)
            return self.said(b"hello", tags=query.removeprefix("tags="))
        if event == "close":
            closes.append("%s %s %s\n" % (ours("Id"), ours("Code"), ours("Reason")))
            return self.answer(b"")
        if self.headers["Content-Type"] == "application/octet-stream":
            return self.answer(body)
        if body == b"fail once" and attempt == "1":
            return self.answer(b"not now", 500)
        if body == b"hang once" and attempt == "1":
            threading.Event().wait()
        if body == b"wait":
            waiting.set()
            release.wait()
            return self.said(b"released")
        if body == b"close me":
            return self.said(b"last", close="4001 as you wish")
        self.said(("%s/%s" % (seq, attempt)).encode())

    def said(self, body, tags=None, close=None):
        self.send_response(200)
        self.send_header("Content-Type", "text/plain; charset=utf-8")
        self.send_header("Content-Length", str(len(body)))
        if tags:
            self.send_header("Actor-Ws-Tags", tags)
        if close:
            self.send_header("Actor-Ws-Close", close)
        self.end_headers()
        self.wfile.write(body)

    def get_closes(self, _):
        self.answer("".join(closes).encode())

    def get_waiting(self, _):
        self.answer(b"yes" if waiting.is_set() else b"no")

    def read_body(self):
        if self.headers.get("Transfer-Encoding") == "chunked":
            parts = []
            while size := int(self.rfile.readline(), 16):
                parts.append(self.rfile.read(size))
                self.rfile.readline()
            self.rfile.readline()
            return b"".join(parts)
        return self.rfile.read(int(self.headers.get("Content-Length") or 0))

    def answer(self, body, status=200):
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def chunked(self):
        self.send_response(200)
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()

    def chunk(self, data):
        self.wfile.write(b"%x\r\n%s\r\n" % (len(data), data))

    def websocket(self, mode):
        if mode == "refuse":
            return self.answer(b"no", 403)
        key = self.headers["Sec-WebSocket-Key"] + "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
        accept = base64.b64encode(hashlib.sha1(key.encode()).digest()).decode()
        self.wfile.write(("HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
                          "Sec-WebSocket-Accept: %s\r\n\r\n" % accept).encode())
        self.close_connection = True
        if mode == "headers":
            self.frame(1, json.dumps([[k, v] for k, v in self.headers.items()]).encode())
        if mode == "big":
            self.frame(2, b"x" * (20 * 1024 * 1024 + 1))
        while True:
            head = self.rfile.read(2)
            if len(head) < 2:
                return
            op, size = head[0] & 15, head[1] & 127
            if size == 126:
                size, = struct.unpack("!H", self.rfile.read(2))
            elif size == 127:
                size, = struct.unpack("!Q", self.rfile.read(8))
            mask = self.rfile.read(4)
            data = self.rfile.read(size)
            long = int.from_bytes((mask * (size // 4 + 1))[:size], "big")
            data = (int.from_bytes(data, "big") ^ long).to_bytes(size, "big")
            if op == 8:
                with open(os.path.join(os.environ["TMPDIR"], "closed"), "wb") as out:
                    out.write(data)
                return self.frame(8, data)
            if data == b"close me":
                self.frame(8, struct.pack("!H", 4001) + b"as you wish")
            elif data == b"drop me":
                return self.connection.shutdown(socket.SHUT_RDWR)
            elif data == b"crash":
                os._exit(3)
            elif op in (1, 2):
                self.frame(op, data)

    def frame(self, op, data):
        size = len(data)
        head = struct.pack("!BB", 128 | op, size) if size < 126 else (
            struct.pack("!BBH", 128 | op, 126, size) if size < 65536 else struct.pack("!BBQ", 128 | op, 127, size))
        self.wfile.write(head + data)

    def address_string(self):
        return "runner"

    def log_message(self, *_):
        pass


class Unix(socketserver.ThreadingMixIn, socketserver.UnixStreamServer):
    daemon_threads = True
    request_queue_size = 5


class Tcp(socketserver.ThreadingMixIn, socketserver.TCPServer):
    daemon_threads = True
    allow_reuse_address = True
    request_queue_size = 128


def server():
    if "LISTEN_FDS" in os.environ:
        unix = Unix("unused", App, bind_and_activate=False)
        unix.socket.close()
        unix.socket = socket.socket(fileno=3)
        return unix
    if "PORT" in os.environ:
        return Tcp((os.environ["HOST"], int(os.environ["PORT"])), App)
    return Unix(os.environ["ACTOR_SOCKET"], App)


if os.environ.get("ON_TERM") == "ignore":
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
elif os.environ.get("ON_TERM") == "linger":
    def later(*_):
        def finish():
            release.set()
            time.sleep(0.2)
            os._exit(0)
        threading.Thread(target=finish).start()
    signal.signal(signal.SIGTERM, later)
print("up and running", flush=True)
server().serve_forever()
