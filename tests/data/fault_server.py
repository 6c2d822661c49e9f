"""A web server that misbehaves in every way a downloader must survive, and that counts what it was asked for.

A path is answered by the `Answer` that stands for it, or by the next of a list of them; the last one stays. A server
listens on 127.0.0.1 at a port of its own; `server.url("a.mp4", host="localhost")` names the same machine as another host.
"""

import contextlib
import dataclasses
import hashlib
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator
from email.utils import formatdate
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


@dataclasses.dataclass(frozen=True)
class Answer:
    """One answer. `body` is the whole file; ranges of it are cut where `ranges` allows."""

    body: bytes = b""
    status: int = 200
    headers: dict[str, str] = dataclasses.field(default_factory=dict)
    ranges: bool = True
    etag: str = "auto"  # of the body; "": none is sent
    modified: str = ""
    length: int | None = None  # Content-Length to claim; None: the true one; -1: none, and the connection ends the body
    cut: int | None = None  # bytes of this answer after which the connection ends
    reset: bool = False  # it ends with a reset (RST) instead of an orderly end
    stall_s: float = 0.0  # silence before the answer, or where it is cut
    pace_s: float = 0.0  # between pieces
    piece: int = 65_536
    if_range: bool = True  # False: a server that ignores If-Range and cuts a range of whatever it has now
    before: Callable[[], object] = lambda: None


@dataclasses.dataclass
class Seen:
    """One request: its path, the range it asked for, when it came, how many bytes of a body it was sent so far."""

    path: str
    range: str
    host: str
    time_s: float
    sent: int = 0


class FaultServer(ThreadingHTTPServer):
    """Set `answers["/a.mp4"]`; read `seen`, `most_at_once` (by host) and `sent_bytes`."""

    daemon_threads = True

    def __init__(self) -> None:
        self.answers: dict[str, Answer | list[Answer]] = {}
        self.seen: list[Seen] = []
        self.at_once: dict[str, int] = {}
        self.most_at_once: dict[str, int] = {}
        self.lock = threading.Lock()
        self.ended = threading.Event()
        super().__init__(("127.0.0.1", 0), _Handler)

    def url(self, path: str, host: str = "127.0.0.1") -> str:
        return f"http://{host}:{self.server_port}/{path}"

    def requests(self, path: str) -> list[Seen]:
        return [seen for seen in self.seen if seen.path == f"/{path}"]

    def sent_bytes(self, path: str = "") -> int:
        return sum(seen.sent for seen in self.seen if not path or seen.path == f"/{path}")

    def next_answer(self, path: str) -> Answer:
        with self.lock:
            found = self.answers.get(path, Answer(b"<html>no such file</html>", status=404))
            if isinstance(found, list):
                return found.pop(0) if len(found) > 1 else found[0]
            return found

    def count(self, host: str, step: int) -> None:
        with self.lock:
            self.at_once[host] = now = self.at_once.get(host, 0) + step
            self.most_at_once[host] = max(now, self.most_at_once.get(host, 0))

    def handle_error(self, request: object, client_address: object) -> None:
        """Clients that go away are what these tests are about."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: FaultServer

    def do_GET(self) -> None:
        host = self.headers.get("Host", "").partition(":")[0]
        self.now = Seen(self.path, self.headers.get("Range", ""), host, time.monotonic())
        self.server.seen.append(self.now)
        self.server.count(host, 1)
        try:
            self._answer(self.server.next_answer(self.path))
        finally:
            self.server.count(host, -1)

    def _answer(self, answer: Answer) -> None:
        answer.before()
        if answer.stall_s and answer.cut is None:
            self.server.ended.wait(answer.stall_s)
        etag = f'"{hashlib.md5(answer.body).hexdigest()}"' if answer.etag == "auto" else answer.etag
        status, body, headers = answer.status, answer.body, dict(answer.headers)
        if etag:
            headers["ETag"] = etag
        if answer.modified:
            headers["Last-Modified"] = answer.modified
        wanted = self.headers.get("Range", "")
        same = not answer.if_range or self.headers.get("If-Range", etag) in (etag, answer.modified)
        if wanted and answer.ranges and status == 200 and same:
            start = int(wanted.removeprefix("bytes=").rstrip("-"))
            if start >= len(body):
                status, headers["Content-Range"], body = 416, f"bytes */{len(body)}", b""
            else:
                status, headers["Content-Range"] = 206, f"bytes {start}-{len(body) - 1}/{len(body)}"
                body = body[start:]
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        if answer.length != -1:
            whole = answer.length is None or status == 206
            self.send_header("Content-Length", str(len(body) if whole else answer.length))
        if answer.cut is not None or answer.length is not None:
            self.close_connection = True
            self.send_header("Connection", "close")
        self.end_headers()
        self._send(body[: answer.cut] if answer.cut is not None else body, answer)
        if answer.cut is not None and answer.stall_s:
            self.server.ended.wait(answer.stall_s)
        if answer.reset:
            # Linger 0: closing sends RST and drops what is still under way.
            self.wfile.flush()
            time.sleep(0.05)
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self.connection.close()

    def _send(self, body: bytes, answer: Answer) -> None:
        for start in range(0, len(body), answer.piece):
            if self.server.ended.is_set():
                return
            piece = body[start : start + answer.piece]
            self.wfile.write(piece)
            self.now.sent += len(piece)
            if answer.pace_s:
                time.sleep(answer.pace_s)

    def log_message(self, format: str, *args: object) -> None:
        """Quiet."""


@contextlib.contextmanager
def fault_server() -> Iterator[FaultServer]:
    """A running server."""
    with FaultServer() as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        try:
            yield server
        finally:
            server.ended.set()
            server.shutdown()
            thread.join()


def http_date(seconds_from_now: float) -> str:
    return formatdate(time.time() + seconds_from_now, usegmt=True)
