"""A wire to the S3 server on which one request goes wrong: a small HTTP proxy on loopback that forwards bytes as they are.

Signatures hold because the client's own Host header is forwarded, which is what it signed.
"""

from __future__ import annotations

import re
import socket
import threading
import time
from contextlib import suppress
from dataclasses import dataclass
from typing import Literal

Kind = Literal["500", "503", "cut before", "cut inside", "cut after", "half", "hang", "down"]
ONCE: tuple[Kind, ...] = ("500", "503", "cut before", "cut inside", "cut after", "half", "hang")
"""`cut before`: nothing reached the server. `cut inside`: half of the request did. `cut after`: the server did it, the answer
is lost. `half`: half of the answer came. `hang`: the server did it, and the answer comes too late."""
ANSWERS = {"500": ("500 Internal Server Error", "InternalError"), "503": ("503 Slow Down", "SlowDown"),
           "down": ("503 Service Unavailable", "ServiceUnavailable")}
HANG_SECONDS = 1.0


@dataclass(frozen=True)
class Wrong:
    """Which request goes wrong, counted from 1, and how; `down` stays for all that follow."""

    at: int
    kind: Kind


class Wire:
    """A proxy to a port of this machine, for as long as this process lives."""

    def __init__(self, port: int, wrong: Wrong | None) -> None:
        self.port, self.wrong, self.requests = port, wrong, 0
        self._alone = threading.Lock()
        self._door = socket.create_server(("127.0.0.1", 0), backlog=64)
        threading.Thread(target=self._serve, daemon=True).start()

    @property
    def url(self) -> str:
        """Where clients connect."""
        return f"http://127.0.0.1:{self._door.getsockname()[1]}"

    def _serve(self) -> None:
        while True:
            client, _ = self._door.accept()
            threading.Thread(target=self._talk, args=(client,), daemon=True).start()

    def _talk(self, client: socket.socket) -> None:
        with suppress(OSError), client, socket.create_connection(("127.0.0.1", self.port)) as server:
            reader, answers = client.makefile("rb"), server.makefile("rb")
            while head := _head(reader):
                kind = self._kind()
                if kind == "cut before":
                    return
                if b"\r\nexpect:" in head.lower():
                    client.sendall(b"HTTP/1.1 100 Continue\r\n\r\n")
                    head = re.sub(rb"(?i)\r\nexpect:[^\r]*", b"", head)
                body = _body(reader, head)
                if kind in ANSWERS:
                    client.sendall(_refusal(*ANSWERS[kind], is_head=head.startswith(b"HEAD")))
                    return
                if kind == "cut inside":
                    server.sendall((head + body)[:(len(head) + len(body)) // 2])
                    return
                server.sendall(head + body)
                answer = _answer(answers, is_head=head.startswith(b"HEAD"))
                if kind == "hang":
                    time.sleep(HANG_SECONDS)
                if kind in ("cut after", "hang"):
                    return
                client.sendall(answer[:len(answer) // 2] if kind == "half" else answer)
                if kind == "half":
                    return

    def _kind(self) -> str:
        with self._alone:
            self.requests += 1
            if self.wrong is None:
                return ""
            hit = self.requests >= self.wrong.at if self.wrong.kind == "down" else self.requests == self.wrong.at
            return self.wrong.kind if hit else ""


def _head(reader: object) -> bytes:
    lines = []
    while line := reader.readline():  # type: ignore[attr-defined]
        lines.append(line)
        if line == b"\r\n":
            return b"".join(lines)
    return b""


def _body(reader: object, head: bytes) -> bytes:
    if re.search(rb"(?i)\r\ntransfer-encoding: *chunked", head):
        parts = []
        while True:
            size = reader.readline()  # type: ignore[attr-defined]
            count = int(size.split(b";")[0], 16)
            parts += [size, reader.read(count + 2)]  # type: ignore[attr-defined]
            if not count:
                return b"".join(parts)
    length = re.search(rb"(?i)\r\ncontent-length: *(\d+)", head)
    return bytes(reader.read(int(length[1]))) if length else b""  # type: ignore[attr-defined]


def _answer(reader: object, *, is_head: bool) -> bytes:
    head = _head(reader)
    status = int(head.split(b" ", 2)[1]) if head else 0
    if status == 100:
        return _answer(reader, is_head=is_head)
    return head + (b"" if is_head or status in (204, 304) else _body(reader, head))


def _refusal(status: str, code: str, *, is_head: bool) -> bytes:
    body = b"" if is_head else f"<?xml version='1.0'?><Error><Code>{code}</Code><Message>busy</Message></Error>".encode()
    head = f"HTTP/1.1 {status}\r\nContent-Type: application/xml\r\nContent-Length: {len(body)}\r\nConnection: close\r\n\r\n"
    return head.encode() + body
