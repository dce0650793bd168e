"""Sends an answer from the memory it lies in."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from starlette.types import Scope, Send

from softxent_service.http.bulk import bulk_of

Piece = bytes | memoryview

PIECE_BYTES = 1 << 20
"""Of a large answer this much is handed over at a time, so that a slow reader holds one piece of
it in the transport's own queue and not all."""

JOINED_BYTES = 32 << 10
"""Up to here the pieces are joined: one send costs less than two (about 5 us each)."""


async def send_answer(
    scope: Scope,
    send: Send,
    media_type: bytes,
    pieces: Sequence[Piece],
    moved: Callable[[int], None],
) -> None:
    """Send status 200 and the pieces, each waiting until the transport takes more.

    `moved` is told of bytes of a large answer that the transport took. Where the connection offers
    `Bulk`, the memory of the pieces is free to be used again after.
    """
    size = sum(len(piece) for piece in pieces)
    await send(
        {
            "type": "http.response.start",
            "status": 200,
            "headers": [(b"content-type", media_type), (b"content-length", b"%d" % size)],
        }
    )
    if size > JOINED_BYTES:
        for piece in pieces:
            await _send_slices(send, memoryview(piece), moved)
        if (bulk := bulk_of(scope)) is not None:
            await bulk.flush()
        await send({"type": "http.response.body", "body": b""})
    else:
        body = pieces[0] if len(pieces) == 1 else b"".join(pieces)
        await send({"type": "http.response.body", "body": body})


async def _send_slices(send: Send, view: memoryview, moved: Callable[[int], None]) -> None:
    for start in range(0, len(view), PIECE_BYTES):
        body = view[start : start + PIECE_BYTES]
        await send({"type": "http.response.body", "body": body, "more_body": True})
        moved(len(body))
