"""Servers on loopback: one that answers as a test says, also in ways that HTTP does not know, with zip files, and one of S3."""

from __future__ import annotations

import hashlib
import io
import re
import socket
import threading
import urllib.request
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import pytest

from fruitgan.data.download import RemoteFile

Answer = Callable[[socket.socket, str], None]
"""Writes to a connection; the request's head is given."""


@dataclass
class Server:
    """Answers each request with the next of its answers, the last one again and again."""

    answers: list[Answer] = field(default_factory=list)
    asked: list[tuple[str, str | None]] = field(default_factory=list)
    """The paths and Range headers of all requests."""
    address: str = ""


@contextmanager
def serving() -> Iterator[Server]:
    state = Server()
    listening = socket.create_server(("127.0.0.1", 0))
    state.address = f"http://127.0.0.1:{listening.getsockname()[1]}"

    def serve() -> None:
        while True:
            try:
                connection, _ = listening.accept()
            except OSError:  # closed: the test is over
                return
            with connection:
                try:
                    head = b""
                    while b"\r\n\r\n" not in head and (more := connection.recv(4096)):
                        head += more
                    if not head:
                        continue
                    state.asked.append((head.decode().split()[1], wanted_range(head.decode())))
                    answer = state.answers.pop(0) if len(state.answers) > 1 else state.answers[0]
                    answer(connection, head.decode())
                except OSError:  # the client had enough
                    continue

    thread = threading.Thread(target=serve)
    thread.start()
    yield state
    listening.shutdown(socket.SHUT_RDWR)
    listening.close()
    thread.join()


@contextmanager
def loopback_s3() -> Iterator[None]:
    """A server of objects, whose address and keys are in the environment of whatever is started meanwhile.

    Skips the test where s3fs and moto[server] are not installed.
    """
    pytest.importorskip("s3fs")
    pytest.importorskip("moto.server")
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0)
    server.start()
    address = "http://{}:{}".format(*server.get_host_and_port())
    urllib.request.urlopen(f"{address}/moto-api/reset", data=b"").close()  # a process has one state for all its servers
    with pytest.MonkeyPatch.context() as patch:
        for name, value in (
            *(("AWS_ACCESS_KEY_ID", "key"), ("AWS_SECRET_ACCESS_KEY", "hidden"), ("AWS_DEFAULT_REGION", "us-east-1")),
            ("AWS_ENDPOINT_URL", address),
        ):
            patch.setenv(name, value)
        yield
    server.stop()


def wanted_range(head: str) -> str | None:
    found = re.search(r"^Range: (.*)\r$", head, flags=re.MULTILINE | re.IGNORECASE)
    return found[1] if found else None


def raw(text: str, body: bytes = b"") -> Answer:
    return lambda connection, head: connection.sendall(text.replace("\n", "\r\n").encode() + b"\r\n\r\n" + body)


def file_of(data: bytes, cut: int | None = None, takes_ranges: bool = True) -> Answer:
    """The file, or what is asked for of it; with `cut` the connection breaks after so many bytes."""

    def answer(connection: socket.socket, head: str) -> None:
        wanted = wanted_range(head)
        start = int(wanted.removeprefix("bytes=").removesuffix("-")) if wanted and takes_ranges else 0
        body = data[start:]
        status = f"206 Partial\nContent-Range: bytes {start}-{len(data) - 1}/{len(data)}" if start else "200 OK"
        status = status if body or not data else "416 No"
        raw(f"HTTP/1.1 {status}\nContent-Length: {len(body)}\nConnection: close", body[:cut])(connection, head)

    return answer


def zipped(*entries: tuple[str | zipfile.ZipInfo, bytes], method: int = zipfile.ZIP_DEFLATED) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", method) as archive:
        for name, data in entries:
            archive.writestr(name, data)
    return file.getvalue()


def remote(data: bytes, name: str = "tiny.zip") -> RemoteFile:
    address = f"https://example.invalid/{name}"
    return RemoteFile(name=name, address=address, size_bytes=len(data), sha256=hashlib.sha256(data).hexdigest())
