"""Every operation of an object store outlives a server that is being restarted."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from datetime import timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest
from zarr.abc.store import RangeByteRequest
from zarr.core.buffer import default_buffer_prototype
from zarr.core.sync import sync

from softxent_service.jobs import stores
from softxent_service.jobs.errors import StorageError
from softxent_service.jobs.roots import Place
from softxent_service.jobs.storage import Folder
from softxent_service.jobs.stores import Bucket, store_at

FAULTS = 7
"""More than the five tries, over in 1.5 s, that removals and lists had."""

LIST = b"""<?xml version="1.0"?><ListBucketResult><Name>b</Name><KeyCount>1</KeyCount>
<IsTruncated>false</IsTruncated><Contents><Key>p/k</Key><Size>4</Size><ETag>"a"</ETag>
<LastModified>2026-11-30T15:43:40.000Z</LastModified></Contents></ListBucketResult>"""
FOLDER = b"<CommonPrefixes><Prefix>p/deep/</Prefix></CommonPrefixes></ListBucketResult>"
DELETED = b"<DeleteResult><Deleted><Key>p/k</Key></Deleted></DeleteResult>"
KEY_FAILED = (
    b"<DeleteResult><Error><Key>p/k</Key><Code>InternalError</Code><Message>We encountered an"
    b" internal error, please try again.</Message></Error></DeleteResult>"
)


class Server(ThreadingHTTPServer):
    """Answers in the manner of S3, but first some times with a fault."""

    fault = ""
    left = 0
    seen = 0


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Server

    def log_message(self, *_: object) -> None:
        """Say nothing."""

    def answer(self) -> None:
        self.rfile.read(int(self.headers.get("content-length") or 0))
        self.server.seen += 1
        if self.server.left:
            self.server.left -= 1
            self.fail(self.server.fault)
        else:
            self.send(206 if self.headers.get("range") else 200, self.content())

    do_GET = do_HEAD = do_PUT = do_POST = do_DELETE = answer  # noqa: N815

    def content(self) -> bytes:
        if self.command == "POST":
            return DELETED
        if self.command == "PUT":
            return b""
        if "delimiter" in self.path:
            return LIST.replace(b"</ListBucketResult>", FOLDER)
        return LIST if "list-type" in self.path else b"data"

    def fail(self, fault: str) -> None:
        if fault.isdigit():
            self.send(int(fault), b"")
        elif fault == "key" and self.command == "POST":
            self.send(200, KEY_FAILED)
        else:
            # The connection ends within the answer.
            self.close_connection = True
            if self.command == "HEAD":
                return
            content = self.content() if self.command == "GET" else b"<"
            length = len(content) if self.command == "GET" else 9
            self.send(206 if self.headers.get("range") else 200, content[:-1], length)

    def send(self, status: int, content: bytes, length: int | None = None) -> None:
        self.send_response(status)
        if status == 206:
            self.send_header("content-range", "bytes 0-3/4")
        self.send_header("etag", '"a"')
        self.send_header("last-modified", "Mon, 30 Nov 2026 15:43:40 GMT")
        self.send_header("content-length", str(len(content) if length is None else length))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    with Server(("127.0.0.1", 0), Handler) as server, pytest.MonkeyPatch.context() as patch:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        patch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{server.server_port}")
        patch.setenv("AWS_ACCESS_KEY_ID", "a")
        patch.setenv("AWS_SECRET_ACCESS_KEY", "b")
        patch.setenv("AWS_ALLOW_HTTP", "true")
        patch.setenv("AWS_REGION", "us-east-1")
        # Pauses begin at a hundredth of what they are, for the tests' sake; they grow as always.
        patch.setitem(stores.RETRIES["backoff"], "init_backoff", timedelta(milliseconds=1))
        patch.setattr(vars(Bucket)["get"].retry.wait, "multiplier", 0.001)
        store_at.cache_clear()
        yield server
        store_at.cache_clear()
        server.shutdown()
        thread.join()


def bucket(folder: Folder) -> Bucket:
    store = folder.writer
    assert isinstance(store, Bucket)
    return store


async def every(names: Any) -> list[str]:
    return [name async for name in names]


BUFFERS = default_buffer_prototype()
DATA = BUFFERS.buffer.from_bytes(b"data")

OPERATIONS: dict[str, Callable[[Folder], Any]] = {
    "read": lambda folder: folder.read("k").tobytes() == b"data",
    "read a part": lambda folder: folder.read("k", 0, 4).tobytes() == b"data",
    "parts": lambda folder: sync(
        bucket(folder).get_partial_values(BUFFERS, [("k", RangeByteRequest(0, 4))])
    ),
    "size": lambda folder: folder.size("k") == 4,
    "stamp": lambda folder: '"a"' in folder.stamp("k"),
    "stamps": lambda folder: list(folder.stamps()) == ["k"],
    "exists": lambda folder: folder.exists("k"),
    "names": lambda folder: list(folder.names("")) == ["k"],
    "children": lambda folder: folder.children() == {"k", "deep"},
    "entries": lambda folder: list(folder.entries()) == [("deep", True), ("k", False)],
    "write": lambda folder: [folder.write("k", b"data")],  # type: ignore[func-returns-value]
    "write a new one": lambda folder: sync(bucket(folder).set_if_not_exists("k", DATA)) is None,
    "remove": lambda folder: [folder.remove("")],  # type: ignore[func-returns-value]
    "remove one": lambda folder: sync(bucket(folder).delete("k")) is None,
}


@pytest.mark.parametrize("fault", ["500", "503", "cut"])
@pytest.mark.parametrize("operation", OPERATIONS)
def test_a_fault_that_passes_is_outlived(server: Server, operation: str, fault: str) -> None:
    # An answer to HEAD has no body that could be cut, and that to PUT is not looked at.
    server.fault, server.left, server.seen = fault, FAULTS, 0
    assert OPERATIONS[operation](Folder(Place("s3://b", "p")))


@pytest.mark.parametrize("operation", ["remove", "remove one"])
def test_a_key_that_cannot_be_removed_yet_is_removed(server: Server, operation: str) -> None:
    server.fault, server.left = "key", FAULTS
    OPERATIONS[operation](Folder(Place("s3://b", "p")))
    assert server.left == 0


@pytest.mark.parametrize("fault", ["400", "403"])
def test_a_refusal_is_told_at_once(server: Server, fault: str) -> None:
    for operation in ("read", "names", "write", "remove"):
        server.fault, server.left, server.seen = fault, 1000, 0
        with pytest.raises(StorageError, match=f"cannot be .*{fault}"):
            OPERATIONS[operation](Folder(Place("s3://b", "p")))
        assert server.seen == 1
    server.left = 0
