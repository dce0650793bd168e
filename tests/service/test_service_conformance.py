"""HTTP/1.1 as RFC 9112 has it: what is one message, what is none, and what follows either.

The cases go by the ideas of public suites of request smuggling. Behind each request stands another
one: it must be answered if the first is read, and never be if the first is refused.
"""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterator
from typing import BinaryIO

import pytest
from service_support import GOOD, JSON, PATH, connect, slug

from service_process import Service

Start = Callable[..., Service]

NEXT = b"GET /v2/health/live HTTP/1.1\r\nhost: next\r\n\r\n"
"""What follows; 200 and `{"live":true}` is its answer, which no case has."""


@pytest.fixture(scope="module", params=["bulk", "plain"])
def url(request: pytest.FixtureRequest, service_url: str) -> Iterator[str]:
    """A service of either transport."""
    if request.param == "bulk":
        yield service_url
        return
    service = Service("--transport=plain")
    try:
        yield service.ready_url()
        assert service.end() == 0
        assert "Traceback" not in service.log()
    finally:
        service.clear()


def call(*lines: bytes, body: bytes = GOOD, first: bytes = b"POST %s HTTP/1.1") -> bytes:
    """Return a call with these lines of its head; `first` is its request line."""
    line = first % PATH.encode() if b"%s" in first else first
    return b"\r\n".join([line, b"content-type: " + JSON.encode(), *lines, b"", body])


def sized(*lines: bytes, body: bytes = GOOD, first: bytes = b"POST %s HTTP/1.1") -> bytes:
    return call(b"content-length: %d" % len(body), *lines, body=body, first=first)


HOST = b"host: test"
TE = b"transfer-encoding: chunked"
N = b"%d" % len(GOOD)
CHUNKS = b"%x\r\n%s\r\n0\r\n\r\n" % (len(GOOD), GOOD)


def chunked(*lines: bytes, body: bytes = CHUNKS) -> bytes:
    return call(HOST, *(lines or (TE,)), body=body)


def chunks(size: bytes, data: bytes = GOOD + b"\r\n", end: bytes = b"0\r\n\r\n") -> bytes:
    """Return a call of one chunk, with a size as it is written."""
    return chunked(body=size + b"\r\n" + data + end)


S = b"%x" % len(GOOD)

READ = {
    "as it is": sized(HOST),
    # 2.2: empty lines before a request line.
    "empty lines before": b"\r\n\r\n" + sized(HOST),
    # RFC 9110, 5.5: blanks around a value are none of it.
    "blank behind a length": call(HOST, b"content-length: %s " % N),
    "blanks around a length": call(HOST, b"content-length: \t %s \t " % N),
    "no blank before a length": call(HOST, b"content-length:" + N),
    "blank behind chunked": chunked(b"transfer-encoding: chunked "),
    "tab before chunked": chunked(b"transfer-encoding:\tchunked"),
    "CHUNKED": chunked(b"Transfer-Encoding: CHUNKED"),
    "blanks around the host": sized(b"host: \t test\t "),
    "blank behind identity": sized(HOST, b"content-encoding: identity "),
    "blanks around a type": call(HOST, b"content-length: " + N, b"accept: \t*/* "),
    "zeros before a length": call(HOST, b"content-length: 000" + N),
    "zeros before a size": chunks(b"000" + S),
    "size in upper case": chunks(S.upper()),
    # 7.1.1: extensions of chunks are ignored.
    "extensions": chunks(S + b';a;b=c;d="e f"'),
    "trailers": chunks(S, end=b"0\r\nx: y\r\n\r\n"),
    "last size of many zeros": chunks(S, end=b"0000\r\n\r\n"),
    # RFC 3986, 3.2.2 and 3.2.3.
    "host and port": sized(b"host: test.example:8000"),
    "port that is empty": sized(b"host: test:"),
    "host that is empty": sized(b"host:"),
    "IPv4": sized(b"host: 127.0.0.1:80"),
    "IPv6": sized(b"host: [2001:db8::1]:80"),
    "host in upper case": sized(b"HOST: TEST"),
    "host percent-encoded": sized(b"host: t%65st"),
    "absolute target": sized(HOST, first=b"POST http://elsewhere:1%s HTTP/1.1"),
    "expectation in upper case": sized(HOST, b"expect: 100-CONTINUE "),
    "unknown header with a length": sized(HOST, b"content_length: 1", b"x-length: 0"),
    "connection names a length": sized(HOST, b"connection: content-length"),
}

MALFORMED = {
    # 6.3: a message of two lengths is one that is smuggled.
    "length and chunked": chunked(b"content-length: 5", TE),
    "chunked and length": chunked(TE, b"content-length: 5"),
    "two equal lengths": call(HOST, b"content-length: " + N, b"content-length: " + N),
    "two lengths": call(HOST, b"content-length: " + N, b"content-length: 0"),
    "list of lengths": call(HOST, b"content-length: %s, %s" % (N, N)),
    "length of two words": call(HOST, b"content-length: %s 0" % N),
    "negative length": call(HOST, b"content-length: -1"),
    "signed length": call(HOST, b"content-length: +" + N),
    "length in hex": call(HOST, b"content-length: 0x" + S),
    "length with a point": call(HOST, b"content-length: %s.0" % N),
    "length with an underscore": call(HOST, b"content-length: 3_3"),
    "empty length": call(HOST, b"content-length:"),
    "length over 64 bits": call(HOST, b"content-length: 18446744073709551617"),
    "length of 1,000 digits": call(HOST, b"content-length: " + b"1" * 1000),
    "length in other digits": call(HOST, "content-length: \u0663".encode()),
    # 6.1: the last coding is chunked, once.
    "chunked twice": chunked(b"transfer-encoding: chunked, chunked"),
    "chunked on two lines": chunked(TE, TE),
    "chunked, then identity": chunked(TE, b"transfer-encoding: identity"),
    "xchunked": chunked(b"transfer-encoding: xchunked"),
    "chunkedx": chunked(b"transfer-encoding: chunkedx"),
    "quoted": chunked(b'transfer-encoding: "chunked"'),
    "with a parameter": chunked(b"transfer-encoding: chunked;q=1"),
    "empty coding": chunked(b"transfer-encoding:"),
    # A tab might be dropped as a blank is; the parser refuses it, which is as safe.
    "tab behind chunked": chunked(b"transfer-encoding: chunked\t"),
    "vertical tab": chunked(b"transfer-encoding:\x0bchunked"),
    "form feed": chunked(b"transfer-encoding: chunked\x0c"),
    "HTTP/1.0 and chunked": call(HOST, TE, body=CHUNKS, first=b"POST %s HTTP/1.0"),
    # 5.1 and 5.2.
    "blank before a colon": call(HOST, b"content-length : " + N),
    "tab before a colon": call(HOST, b"transfer-encoding\t: chunked", body=CHUNKS),
    "blank in a name": sized(HOST, b"x y: z"),
    "no name": sized(HOST, b": x"),
    "no colon": sized(HOST, b"nothing"),
    "folded line": sized(HOST, b"x: y\r\n z"),
    "folded length": call(HOST, b"content-length:\r\n " + N),
    "folded coding": chunked(b"transfer-encoding:\r\n chunked"),
    "folded before any": call(b" host: test", b"content-length: " + N),
    # 2.2: bare CR and LF.
    "bare CR in a value": sized(HOST, b"x: y\rcontent-length: 0"),
    "bare LF in a value": sized(HOST, b"x: y\ncontent-length: 0"),
    "bare LF behind the request line": sized(HOST).replace(b"1.1\r\n", b"1.1\n"),
    "bare LF at the end": sized(HOST, body=b"").replace(b"\r\n\r\n", b"\n\n"),
    "CR CR LF": sized(HOST, b"x: y\r"),
    "NUL in a name": sized(HOST, b"x\0: y"),
    "NUL in a value": sized(HOST, b"x: \0"),
    "NUL in a target": sized(HOST, first=b"POST %s\0 HTTP/1.1"),
    "escape in a value": sized(HOST, b"x: \x1b[2J"),
    "bytes beyond ASCII in a target": sized(HOST, first=b"POST %s\xff HTTP/1.1"),
    # 3.2: Host.
    "no host": sized(),
    "two hosts": sized(HOST, HOST),
    "two different hosts": sized(HOST, b"host: other"),
    "no host, absolute target": sized(first=b"POST http://test%s HTTP/1.1"),
    "host with a path": sized(b"host: test/x"),
    "host with a user": sized(b"host: me@test"),
    "host with a blank": sized(b"host: te st"),
    "host with a comma and a blank": sized(b"host: a, b"),
    "host with a scheme": sized(b"host: http://test"),
    "host beyond ASCII": sized("host: t\u00e9st".encode()),
    "half a percent-encoding": sized(b"host: t%6"),
    "port that is no number": sized(b"host: test:http"),
    "port that is signed": sized(b"host: test:+80"),
    "port out of range": sized(b"host: test:65536"),
    "port of many digits": sized(b"host: test:000080"),
    "two ports": sized(b"host: test:80:80"),
    "IPv6 without brackets": sized(b"host: 2001:db8::1"),
    "half a bracket": sized(b"host: [::1"),
    "no IPv6 in brackets": sized(b"host: [test]"),
    "two hosts under HTTP/1.0": sized(HOST, HOST, first=b"POST %s HTTP/1.0"),
    # 3: request lines.
    "HTTP/0.9": b"GET /v1/info\r\n\r\n",
    "HTTP/0.9 by name": sized(HOST, first=b"POST %s HTTP/0.9"),
    "HTTP/1.2": sized(HOST, first=b"POST %s HTTP/1.2"),
    "HTTP/2.0": sized(HOST, first=b"POST %s HTTP/2.0"),
    "HTTP/2": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    "http/1.1": sized(HOST, first=b"POST %s http/1.1"),
    "no version": sized(HOST, first=b"POST %s"),
    "blank in a target": sized(HOST, first=b"POST %s x HTTP/1.1"),
    "blank behind the version": sized(HOST, first=b"POST %s HTTP/1.1 "),
    "blank before the method": b" " + sized(HOST),
    "method in lower case": sized(HOST, first=b"post %s HTTP/1.1"),
    "method that is none": sized(HOST, first=b"EVALUATE %s HTTP/1.1"),
    "tabs in the request line": sized(HOST, first=b"POST\t%s\tHTTP/1.1"),
    "authority": b"GET test:80 HTTP/1.1\r\nhost: test:80\r\n\r\n",
    "tunnel": b"CONNECT test:80 HTTP/1.1\r\nhost: test:80\r\n\r\n",
    "asterisk": b"OPTIONS * HTTP/1.1\r\nhost: test\r\n\r\n",
    "asterisk of GET": b"GET * HTTP/1.1\r\nhost: test\r\n\r\n",
    "path without a slash": sized(HOST, first=b"POST v1/softmax HTTP/1.1"),
    "absolute, of another scheme": sized(HOST, first=b"POST ftp://test%s HTTP/1.1"),
    "absolute, with a user": sized(HOST, first=b"POST http://me@test%s HTTP/1.1"),
    "absolute, without a host": sized(HOST, first=b"POST http://%s HTTP/1.1"),
    "absolute, with a wrong port": sized(HOST, first=b"POST http://test:port%s HTTP/1.1"),
    "TLS": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n",
    "binary": bytes(range(256)) * 4,
}

CODED = {
    "coding before chunked": chunked(b"transfer-encoding: gzip, chunked"),
    "identity, then chunked": chunked(b"transfer-encoding: identity", TE),
    "empty element": chunked(b"transfer-encoding: , chunked"),
    "element behind": chunked(b"transfer-encoding: x, chunked"),
}
"""Transfer-Encodings that end in chunked, which other readers may take for something else."""

FAULTY_CHUNKS = {
    "negative size": chunks(b"-1"),
    "signed size": chunks(b"+" + S),
    "size in 0x": chunks(b"0x" + S),
    "size over 64 bits": chunks(b"1" + b"0" * 16),
    "size of 1,000 digits": chunks(b"1" * 1000),
    "no size": chunks(b""),
    "blank behind a size": chunks(S + b" "),
    "bare LF behind a size": chunked(body=S + b"\n" + GOOD + b"\r\n0\r\n\r\n"),
    "bare LF behind data": chunks(S, GOOD + b"\n"),
    "no end of data": chunks(S, GOOD),
    "size too small": chunks(b"1"),
    "bare LF in an extension": chunks(S + b";a\nb"),
    "length in a trailer": chunks(S, end=b"0\r\ncontent-length: 5\r\n\r\n"),
    "coding in a trailer": chunks(S, end=b"0\r\ntransfer-encoding: chunked\r\n\r\n"),
    "blank before a colon in a trailer": chunks(S, end=b"0\r\nx : y\r\n\r\n"),
}
"""Bodies that turn out to be none once their heads have been read."""


def answers_of(stream: BinaryIO) -> Iterator[tuple[int, dict[str, str], bytes]]:
    """Yield every answer of a connection, up to its end."""
    while line := stream.readline():
        headers = {}
        while field := stream.readline().strip():
            name, _, value = field.decode("latin-1").partition(": ")
            headers[name] = value
        yield int(line.split()[1]), headers, stream.read(int(headers.get("content-length", 0)))


def talk(url: str, sent: bytes) -> list[tuple[int, dict[str, str], bytes]]:
    """Send bytes and end this side; return all answers until the service ends its own."""
    with connect(url) as connection, connection.makefile("rb") as stream:
        connection.sendall(sent)
        connection.shutdown(socket.SHUT_WR)
        return list(answers_of(stream))


@pytest.mark.parametrize("case", READ)
def test_what_is_a_message_is_read_and_so_is_the_next(url: str, case: str) -> None:
    first, second = [answer for answer in talk(url, READ[case] + NEXT) if answer[0] != 100]
    assert (first[0], first[2][:9]) == (200, b'{"loss":['), first
    assert (second[0], second[2]) == (200, b'{"live":true}')


@pytest.mark.parametrize("case", MALFORMED)
def test_what_is_no_message_ends_the_connection(url: str, case: str) -> None:
    (answer,) = talk(url, MALFORMED[case] + NEXT)
    assert (answer[0], slug(answer[2])) == (400, "malformed-request"), answer
    assert answer[1]["connection"] == "close"


@pytest.mark.parametrize("case", CODED)
def test_other_transfer_codings_end_the_connection(url: str, case: str) -> None:
    (answer,) = talk(url, CODED[case] + NEXT)
    assert (answer[0], slug(answer[2])) == (415, "unsupported-media-type"), answer
    assert answer[1]["connection"] == "close"


@pytest.mark.parametrize("case", FAULTY_CHUNKS)
def test_a_body_that_is_none_ends_the_connection(url: str, case: str) -> None:
    (answer,) = talk(url, FAULTY_CHUNKS[case] + NEXT)
    assert (answer[0], slug(answer[2])) == (400, "malformed-request"), answer
    assert answer[1]["connection"] == "close"


OLD = {
    "no host": sized(first=b"POST %s HTTP/1.0"),
    "host": sized(HOST, first=b"POST %s HTTP/1.0"),
    "asks to go on": sized(b"connection: keep-alive", first=b"POST %s HTTP/1.0"),
}


@pytest.mark.parametrize("case", OLD)
def test_http_1_0_is_answered_once(url: str, case: str) -> None:
    (answer,) = talk(url, OLD[case] + NEXT)
    assert (answer[0], answer[1]["connection"]) == (200, "close")


def test_close_ends_the_connection_whatever_follows(url: str) -> None:
    (answer,) = talk(url, sized(HOST, b"connection: close ") + NEXT)
    assert (answer[0], answer[1]["connection"]) == (200, "close")


def test_expectation_is_met_before_the_body(url: str) -> None:
    head = sized(HOST, b"expect: 100-continue")[: -len(GOOD)]
    with connect(url) as connection, connection.makefile("rb") as stream:
        connection.sendall(head)
        assert stream.readline() == b"HTTP/1.1 100 Continue\r\n"
        assert stream.readline() == b"\r\n"
        connection.sendall(GOOD + NEXT)
        answers = answers_of(stream)
        assert next(answers)[0] == 200
        assert next(answers)[2] == b'{"live":true}'


def test_expectation_of_what_is_refused_is_not_met(url: str) -> None:
    head = sized(HOST, b"expect: 100-continue").replace(b"json", b"pdf")[: -len(GOOD)]
    with connect(url) as connection, connection.makefile("rb") as stream:
        connection.sendall(head)
        assert next(answers_of(stream))[0] == 415


def test_requests_sent_ahead_are_answered_in_their_order(url: str) -> None:
    sent = NEXT + sized(HOST) + chunked() + NEXT + sized(HOST, body=b"{") + NEXT
    assert [answer[0] for answer in talk(url, sent)] == [200, 200, 200, 200, 400, 200]


def test_a_body_of_a_get_is_no_request(url: str) -> None:
    hidden = b"GET /nothing HTTP/1.1\r\nhost: hidden\r\n\r\n"
    sent = b"GET /v1/info HTTP/1.1\r\nhost: test\r\ncontent-length: %d\r\n\r\n%s" % (
        len(hidden),
        hidden,
    )
    assert [answer[0] for answer in talk(url, sent + NEXT)] == [200, 200]
