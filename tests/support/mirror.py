"""A web server in a thread that serves files and misbehaves as it is told, request by request."""

import contextlib
import hashlib
import re
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


class Mirror(ThreadingHTTPServer):
    """files: path -> bytes. plan: what the next requests meet; "ok" when it is empty. seen: path and headers of each
    request.

    503, 404 ...: that status alone. cut: the body ends half-way. ranges off: always the whole file, no validator.
    no length: the size isn't said, and the body ends half-way. slow: 1 kB at a time.
    """

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.files: dict[str, bytes] = {}
        self.plan: list[str] = []
        self.seen: list[tuple[str, dict[str, str]]] = []
        self.ranges = True

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"

    @property
    def asked(self) -> list[str | None]:
        """The Range header of each request, None without one."""
        return [headers.get("Range") for _, headers in self.seen]


class Handler(BaseHTTPRequestHandler):
    server: Mirror

    def do_GET(self) -> None:
        self.server.seen.append((self.path, dict(self.headers.items())))
        step = self.server.plan.pop(0) if self.server.plan else "ok"
        data = self.server.files.get(self.path.lstrip("/"))
        if step.split(" ")[0].isdecimal() or data is None:
            self.say(int(step.split(" ")[0]) if data is not None else 404, {"Retry-After": step.partition(" ")[2]}, b"")
            return
        etag = '"' + hashlib.sha256(data).hexdigest()[:16] + '"'
        requested = re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range", ""))
        headers = {"ETag": etag} if self.server.ranges else {}
        if requested and self.server.ranges and self.headers.get("If-Range", etag) == etag:
            start = int(requested[1])
            if start >= len(data):
                self.say(416, {"Content-Range": f"bytes */{len(data)}"}, b"")
                return
            headers["Content-Range"] = f"bytes {start}-{len(data) - 1}/{len(data)}"
            self.say(206, headers, data[start:], step)
        else:
            self.say(200, headers, data, step)

    def say(self, status: int, headers: dict[str, str], body: bytes, step: str = "ok") -> None:
        self.send_response(status)
        for name, value in headers.items():
            if value:
                self.send_header(name, value)
        if step != "no length":
            self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            if step == "slow":
                for start in range(0, len(body), 1000):
                    self.wfile.write(body[start : start + 1000])
                    time.sleep(0.01)
            else:
                self.wfile.write(body[: len(body) // 2] if step in ("cut", "no length") else body)

    def log_message(self, format: str, *args: object) -> None:
        pass


@contextlib.contextmanager
def serving() -> Iterator[Mirror]:
    """A mirror that runs meanwhile."""
    with Mirror() as mirror:
        thread = threading.Thread(target=mirror.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        try:
            yield mirror
        finally:
            mirror.shutdown()
            thread.join()
