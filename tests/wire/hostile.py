"""Hostile bodies of any size, for tests of what reading them costs."""

from __future__ import annotations

import gzip
from collections.abc import Callable, Mapping

from backports import zstd

Body = Callable[[int], bytes]
"""Returns a body of about so many bytes."""


def repeated(piece: bytes, before: bytes = b"", after: bytes = b"") -> Body:
    """Return bodies of a piece again and again."""
    return lambda size: before + piece * max(1, size // len(piece)) + after


def logits(piece: bytes, before: bytes = b"[[1", after: bytes = b"]]") -> Body:
    """Return bodies whose logits are made of a piece again and again."""
    return repeated(piece, b'{"labels":[0],"logits":' + before, after + b"}")


DEEP_ROW = b"," + b"[" * 61 + b"1" + b"]" * 61

JSON_BODIES: Mapping[str, Body] = {
    "closing brackets after 63": logits(b"]", b"[" * 63 + b"1", b""),
    "closing brackets after 1,000": logits(b"]", b"[" * 1_000 + b"1", b""),
    "opening brackets": logits(b"[", b"", b""),
    "opening and closing brackets": lambda n: (
        b'{"logits":' + b"[" * (n // 2) + b"]" * (n // 2) + b"}"
    ),
    "rows 62 deep": logits(DEEP_ROW, b"[" + DEEP_ROW[1:], b"]"),
    "rows 62 deep, then one more bracket": logits(DEEP_ROW, b"[" + DEEP_ROW[1:], b"]]"),
    "empty rows": logits(b"[],", b"[", b"[]]"),
    "rows of one": logits(b"[1],", b"[", b"[1]]"),
    "rows of one, a longer one last": logits(b"[1],", b"[", b"[1,2]]"),
    "rows of two lengths": logits(b"[1],[1,2],", b"[", b"[1]]"),
    "numbers for rows": logits(b"1,", b"[[1],", b"1]"),
    "brackets apart": logits(b"] ", b"[ [ 1", b""),
    "white space": logits(b" "),
    "white space between rows": logits(b"[1] , ", b"[", b"[1]]"),
    "commas": logits(b","),
    "ones": logits(b",1"),
    "words": logits(b',"NaN"'),
    "true": logits(b",true"),
    "null": logits(b",null"),
    "objects": logits(b",{}"),
    "strings": logits(b',"a,[b"'),
    "one digit after another": logits(b"7"),
    "zeros behind a point": logits(b"0", b"[[0."),
    "integers beyond 64 bits": logits(b",123456789012345678901"),
    "long division": logits(b",12345678901234567890123e-300"),
    "long division, and exponents of many digits": logits(
        b",1.000000000000000011e-290" * 8_000 + b",1e-00000000000000000000001"
    ),
    "halves of the least number": logits(b",2.4703282292062327208299439634110764e-324"),
    "between two float32": logits(b",16777217.000001"),
    "between two float32, of many digits": logits(b",1.000000059604644775390625000000000000001"),
    "beyond float32": logits(b",1e39"),
    "a string that does not end": repeated(b"a", b'{"labels":[0],"logits":"'),
    "escaped quotes": repeated(b'\\"', b'{"labels":[0],"logits":"'),
    "numbers between brackets": lambda n: (
        b'{"labels":[0],"logits":' + b"[1," * (n // 4) + b"1" + b"]" * (n // 4) + b"}"
    ),
    "members": lambda n: b"{" + b",".join(b'"%x":1' % i for i in range(n // 9 + 1)) + b"}",
    "one member again and again": repeated(b'"labels":[0],', b"{", b'"logits":[[1]]}'),
    "objects in objects": lambda n: b'{"a":' * (n // 6) + b"1" + b"}" * (n // 6),
    "numbers in a flat array": repeated(b"0,", b'{"logits":[[1]],"labels":[', b"0]}"),
    "halves in a flat array": repeated(b"0.5,", b'{"logits":[[1]],"labels":[', b"0]}"),
    "zeros": repeated(b"\0"),
    "bytes that are no UTF-8": repeated(b"\xff", b'{"logits":[["'),
    "byte order marks": repeated(b"\xef\xbb\xbf"),
    "bare words": logits(b",NaN"),
}


def data(piece: bytes, before: bytes = b"[1", after: bytes = b"]") -> Body:
    """Return inference requests whose data are made of a piece again and again."""
    head = b'{"inputs":[{"name":"logits","shape":[1,2],"datatype":"FP32","data":'
    return repeated(piece, head + before, after + b"}]}")


OIP_BODIES: Mapping[str, Body] = {
    "closing brackets": data(b"]", b"[" * 63 + b"1", b""),
    "opening brackets": data(b"[", b"", b""),
    "numbers": data(b",1"),
    "bare words": data(b",NaN"),
    "empty rows": data(b",[]"),
    "objects": data(b",{}"),
    "long division": data(b",12345678901234567890123e-300"),
    "escaped quotes": repeated(b'\\"', b'{"id":"'),
    "quotes": repeated(b'"', b'{"id":'),
    "names of data": repeated(b'"data":', b'{"inputs":['),
    "data again and again": repeated(b'"data":[1],', b'{"inputs":[{', b'"a":1}]}'),
    "inputs": repeated(b"{},", b'{"inputs":[', b"{}]}"),
    "outputs": repeated(b'{"name":"loss"},', b'{"inputs":[],"outputs":[', b'{"name":"loss"}]}'),
    "words at the end": repeated(b"-NaN", b'{"id":'),
}


def header(text: bytes) -> bytes:
    """Return a safetensors body with this header and no data."""
    return len(text).to_bytes(8, "little") + text


def names(count: int) -> bytes:
    """Return members of different names, and one that stands twice at the end."""
    return b",".join(b'"%x":0' % number for number in range(count)) + b',"0":0,"1":0'


SAFETENSORS_BODIES: Mapping[str, Body] = {
    "names": lambda n: header(b"{" + names(n // 8 + 1) + b"}"),
    "one name": lambda n: header(b"{" + b'"a":0,' * (n // 6) + b'"a":0}'),
    "brackets": lambda n: header(b'{"a":' + b"[" * n),
    "dimensions": lambda n: header(
        b'{"logits":{"dtype":"F32","data_offsets":[0,0],"shape":['
        + b"99999999999999999999," * (n // 21)
        + b"1]}}"
    ),
    "digits": lambda n: header(b'{"a":' + b"9" * n + b"}"),
    "spaces": lambda n: header(b"{" + b" " * n),
    "escaped quotes": lambda n: header(b'{"' + b'\\"' * (n // 2)),
}

CODED_BODIES: Mapping[bytes, Mapping[str, Body]] = {
    b"gzip": {
        "empty members": repeated(gzip.compress(b"")),
        "members of a byte": repeated(gzip.compress(b"[")),
        "spaces": lambda n: gzip.compress(b" " * n),
    },
    b"zstd": {
        "empty frames": repeated(zstd.compress(b"")),
        "frames of a byte": repeated(zstd.compress(b"[")),
        "frames to skip": repeated(b"\x50\x2a\x4d\x18\x00\x00\x00\x00"),
    },
}
