"""What a proxy in front of us could read otherwise than we do never reaches an engine."""

import contextlib
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from serve.roster import Roster
from tests.gateway.stack import FakeEngine, Stack, running_gateway, until

PATH = b"/v1/chat/completions"
JSON = b'{"model":"%b","messages":[{"role":"user","content":"hi"}],"max_tokens":1}'
CHUNKED = b"Transfer-Encoding: chunked\r\n"

# What stands in the place of a correct `Content-Length: N`, where N is the body's length.
LENGTHS = [
    b"Content-Length: +N", b"Content-Length: -N", b"Content-Length: N, N", b"Content-Length: N,",
    b"Content-Length: 0xN", b"Content-Length: N.0", b"Content-Length: N N", b"Content-Length: Ne0",
    b"Content-Length: ", b"Content-Length: \x0bN", b"Content-Length: N\x00", b"Content-Length: NL",
    b"Content-Length: _N", b"Content-Length: 1_N", b"Content-Length: \xc2\xb2",
    b"Content-Length: 99999999999999999999999", b"Content-Length:\nN", b"Content-Length : N",
    b" Content-Length: N", b"\tContent-Length: N", b"Content-Length\t: N", b"Content-Length N",
    b"Content-Length: N\r\nContent-Length: N", b"Content-Length: N\r\nContent-Length: 0",
    b"Content-Length: 0\r\nContent-Length: N", b"Content-Length: N\r\ncontent-length: 1",
    b"X: y\r\n Content-Length: N", b"X: y\r\n\tContent-Length: N\r\nContent-Length: N",
    b"X: y\nContent-Length: N", b"X: y\rContent-Length: N", b"X: y\r\r\nContent-Length: N",
    b"Content-Length: N\r\r\n", b"Content-Length: N\n", b"Con\x00tent-Length: N",
    b"Content\x0b-Length: N", b": x\r\nContent-Length: N", b"X\x01: x\r\nContent-Length: N",
    b"X: a\x00b\r\nContent-Length: N", b"X: a\x0bb\r\nContent-Length: N",
    b"X: \x7f\r\nContent-Length: N", b"X(y): z\r\nContent-Length: N",
    b"X[]: z\r\nContent-Length: N", b"\xc3\xa9: z\r\nContent-Length: N",
    b"Host: y\r\nContent-Length: N", b"host: x\r\nContent-Length: N",
    b"Authorization: a\r\nAuthorization: b\r\nContent-Length: N",
    b"Upgrade: h2c\r\nConnection: Upgrade\r\nContent-Length: N",
    b"Upgrade: websocket\r\nConnection: keep-alive, upgrade\r\nContent-Length: N",
]  # fmt: skip
CODINGS = [
    b"xchunked", b"chunkedx", b"chunked ;q=1", b"gzip, chunked", b"chunked, gzip", b"identity",
    b"chunked, chunked", b"chunked,", b",chunked", b"\x0bchunked", b"\x0cchunked", b"chunked\x00",
    b"'chunked'", b'"chunked"', b"chunk", b"", b"chunked\x0b", b"\xa0chunked", b"chunked identity",
    b"deflate", b"chunked\r\nContent-Length: N", b"chunked\r\nTransfer-Encoding: identity",
    b"chunked\r\nTransfer-Encoding: chunked", b"identity\r\nTransfer-Encoding: chunked",
    b"chunked\r\nContent-Length: 0", b"chunked\nX: y", b"chunked\rX: y", b"\r\n chunked",
    b"x\r\ntransfer-encoding: chunked", b"chunked\r\nTransfer-Encoding: ",
]  # fmt: skip
CODING_NAMES = [
    b"Transfer-Encoding :", b"Transfer-Encoding\t:", b" Transfer-Encoding:", b"Transfer_Encoding:",
    b"Transfer-Encoding\x00:", b"Transfer-Encoding\x0b:", b"X: y\nTransfer-Encoding:",
    b"X: y\rTransfer-Encoding:",
]  # fmt: skip
# What stands in the place of a correct chunked body: L is the length in hex, B the body.
FRAMES = [
    b"0xL\r\nB\r\n0\r\n\r\n", b"-L\r\nB\r\n0\r\n\r\n", b"+L\r\nB\r\n0\r\n\r\n",
    b" L\r\nB\r\n0\r\n\r\n", b"L \r\nB\r\n0\r\n\r\n", b"L\t\r\nB\r\n0\r\n\r\n", b"L\nB\n0\n\n",
    b"L\r\nB\n0\r\n\r\n", b"L\nB\r\n0\r\n\r\n", b"L;a\nB\r\n0\r\n\r\n",
    b"L;\x00\r\nB\r\n0\r\n\r\n", b"L\r\r\nB\r\n0\r\n\r\n", b"L\r\nBxx0\r\n\r\n",
    b"L\r\nB\r\r\n0\r\n\r\n", b"\r\nB\r\n0\r\n\r\n", b"g\r\nB\r\n0\r\n\r\n",
    b"1L\r\nB\r\n0\r\n\r\n", b"fffffffffffffffff\r\nB\r\n0\r\n\r\n",
    b"10000000000000000\r\nB\r\n0\r\n\r\n", b"L_\r\nB\r\n0\r\n\r\n", b"L,\r\nB\r\n0\r\n\r\n",
    b"L\x0b\r\nB\r\n0\r\n\r\n", b"\xc2\xb2\r\nB\r\n0\r\n\r\n", b"L\r\nB\r\n0\r\nbad\r\n\r\n",
    b"L\r\nB\r\n0\r\n a: b\r\n\r\n", b"L\r\nB\r\n0\r\na\x00: b\r\n\r\n",
    b"L\r\nB\r\n0\r\na: b\nc: d\r\n\r\n", b"L\r\nB\r\n0\r\nContent-Length: 3\r\n\r\n",
    b"L\r\nB\r\n0\r\nTransfer-Encoding: chunked\r\n\r\n", b"0\r\n\r\nL\r\nB\r\n0\r\n\r\n",
]  # fmt: skip
LINES = [
    b"POST\t/P HTTP/1.1", b"POST /P\tHTTP/1.1", b"POST /P HTTP/1.1 ", b"POST /P HTTP/1.2",
    b"POST /P HTTP/2.0", b"POST /P HTTP/0.9", b"POST /P HTTP/11", b"POST /P HTTP/1.1.1",
    b"POST /P http/1.1", b"POST /P HTTPS/1.1", b"post /P HTTP/1.1", b"Post /P HTTP/1.1",
    b"POSTT /P HTTP/1.1", b"PO ST /P HTTP/1.1", b"POST /P\x00 HTTP/1.1", b"POST /P\x0b HTTP/1.1",
    b"POST /\xc3\xa9 HTTP/1.1", b"POST /P x HTTP/1.1", b"POST  HTTP/1.1", b"POST HTTP/1.1",
    b"POST /P HTTP/1,1", b"POST /P HTTP/1.1\x00", b"\x00POST /P HTTP/1.1", b" POST /P HTTP/1.1",
    b"CONNECT x:80 HTTP/1.1", b"PRI * HTTP/2.0", b"POST P HTTP/1.1", b"POST \\P HTTP/1.1",
    b"POST /P HTTP/1.1\nX: y", b"POST /P HTTP/1.1\rX: y", b"POST /P", b"POST",
]  # fmt: skip
HOSTS = [
    b"", b"Host : x\r\n", b"Host: a b\r\n", b"Host: x/y\r\n", b"Host: x@y\r\n", b"Host: x#y\r\n",
    b"Host: x?y\r\n", b"Host: x\\y\r\n", b"Host: x,y\r\n", b"Host: localhost\r\nHost: x\r\n",
    b"Host: x\x00\r\n", b"Host: \xc3\xa9\r\n", b"Host:\r\n x\r\n",
]  # fmt: skip


def sized(head: bytes, body: bytes, line: bytes = b"POST " + PATH + b" HTTP/1.1") -> bytes:
    return line + b"\r\n" + head + b"\r\n\r\n" + body


def cases(body: bytes) -> Iterator[tuple[bytes, bytes]]:
    """What is odd, and the request that has it."""
    length, size = b"%d" % len(body), b"%x" % len(body)
    host, good = b"Host: localhost\r\n", b"Content-Length: " + length
    framed = size + b"\r\n" + body + b"\r\n0\r\n\r\n"
    for each in LENGTHS:
        yield each, sized(host + each.replace(b"N", length, 1), body)
    for each in CODINGS:
        coding = each.replace(b"N", length)
        yield each, sized(host + b"Transfer-Encoding: " + coding, framed)
    for each in CODING_NAMES:
        yield each, sized(host + each + b" chunked\r\n" + good, framed)
    for each in FRAMES:
        frame = each.replace(b"B", body, 1).replace(b"L", size, 1)
        yield each, sized(host + CHUNKED[:-2], frame)
    for each in LINES:
        yield each, sized(host + good, body, each.replace(b"/P", PATH).replace(b"\\P", b"\\v1"))
    for each in HOSTS:
        yield each, sized(each + good, body)
    for method in (b"POST", b"GET", b"PUT", b"DELETE"):
        for pair in (good + b"\r\n" + CHUNKED[:-2], CHUNKED + good):
            for sent in (framed, body):
                line = method + b" " + PATH + b" HTTP/1.1"
                yield method + b" with both: " + pair, sized(host + pair, sent, line)
    for name in (b"Host", b"HOST", b"hOsT", b"hosT"):
        for value in (b"localhost", b"other", b""):
            yield b"two hosts", sized(host + name + b": " + value + b"\r\n" + good, body)
    for name in (b"Authorization", b"X-Api-Key", b"Content-Type", b"Accept", b"Cookie", b"X"):
        yield b"folded " + name, sized(host + name + b": a\r\n b\r\n" + good, body)
    for count, long in ((1000, 10), (90, 1000), (1, 66_000)):
        yield b"much of a head", sized(host + (b"X: " + b"a" * long + b"\r\n") * count + good, body)
    yield b"1.0 and chunked", sized(host + CHUNKED[:-2], framed, b"POST " + PATH + b" HTTP/1.0")
    yield b"a head without an end", sized(host + b"X: " + b"a" * 200_000, b"")
    yield b"a hundred and one headers", sized(host + b"A: b\r\n" * 101 + good, body)
    endless = b"POST /" + b"a" * 150_000 + b" HTTP/1.1"
    yield b"a url without an end", sized(host + good, body, endless)


def said(stack: Stack, raw: bytes) -> bytes:
    """All that comes back until the other side closes, or nothing comes any more."""
    answer = b""
    with (
        socket.create_connection(stack.address(), timeout=1) as connection,
        contextlib.suppress(ConnectionError, TimeoutError),
    ):
        connection.sendall(raw)
        while data := connection.recv(65536):
            answer += data
    return answer


def test_no_odd_framing_reaches_an_engine(stack: Stack, engine: FakeEngine) -> None:
    body = JSON % engine.name.encode()
    odd = list(cases(body))
    assert len(odd) >= 200
    for name, raw in odd:
        # A request that hides behind the odd one, as a smuggler would have it.
        answer = said(stack, raw + sized(b"Host: localhost\r\nContent-Length: 0", b""))
        statuses = [part[:3] for part in answer.split(b"HTTP/1.1 ")[1:]]
        assert b"200" not in statuses, (name, answer)
        assert len(statuses) <= 1, (name, answer)
    assert engine.get("/fake/info").json()["received"] == 0


@pytest.mark.parametrize(
    ("head", "frame"),
    [
        (b"Content-Length: @", b"B"),
        (b"content-length:@", b"B"),
        (b"Content-Length: @\t", b"B"),
        (b"Transfer-Encoding: chunked", b"L\r\nB\r\n0\r\n\r\n"),
        (b"transfer-encoding: CHUNKED", b"L\r\nB\r\n0\r\n\r\n"),
        (b"Transfer-Encoding: chunked", b"L;ext=1\r\nB\r\n000\r\n\r\n"),
        (b"Transfer-Encoding: chunked", b"L\r\nB\r\n0\r\nx-check: 1\r\n\r\n"),
        (b"Expect: 100-continue\r\nContent-Length: @", b"B"),
    ],
)
def test_what_is_unusual_but_clear_is_answered_once(
    stack: Stack, engine: FakeEngine, head: bytes, frame: bytes
) -> None:
    body = JSON % engine.name.encode()
    raw = sized(
        b"Host: localhost\r\nConnection: close\r\n" + head.replace(b"@", b"%d" % len(body)),
        frame.replace(b"B", body).replace(b"L", b"%x" % len(body)),
    )
    answer = said(stack, raw)
    assert answer.count(b"HTTP/1.1 200 OK") == 1
    assert engine.get("/fake/info").json()["received"] == 1


def test_requests_in_a_row_on_one_connection_stay_apart(stack: Stack, engine: FakeEngine) -> None:
    body = JSON % engine.name.encode()
    one = sized(b"Host: localhost\r\nContent-Length: %d" % len(body), body)
    last = one.replace(b"Host: localhost\r\n", b"Host: localhost\r\nConnection: close\r\n")
    answer = said(stack, one * 2 + last)
    assert answer.count(b"HTTP/1.1 200 OK") == 3
    assert engine.get("/fake/info").json()["received"] == 3


def test_a_trailer_says_nothing(stack: Stack, engine: FakeEngine) -> None:
    """Neither who is there nor under which id: it comes after that was decided."""
    body = JSON % engine.name.encode()
    frame = b"%x\r\n%b\r\n0\r\nx-request-id: from-a-trailer\r\n\r\n" % (len(body), body)
    answer = said(stack, sized(b"Host: localhost\r\nConnection: close\r\n" + CHUNKED[:-2], frame))
    assert b"200 OK" in answer
    assert b"from-a-trailer" not in answer


def test_who_dawdles_is_sent_away(tmp_path: Path) -> None:
    with (
        running_gateway(tmp_path, Roster(), head_timeout_s=1.0, body_timeout_s=2.0) as stack,
        socket.create_connection(stack.address(), timeout=20) as silent,
        socket.create_connection(stack.address(), timeout=20) as slow,
    ):
        slow.sendall(sized(b"Host: localhost\r\nContent-Length: 1000", b"{"))
        assert until(lambda: not _is_open(silent), 20) < 20
        assert until(lambda: not _is_open(slow), 20) < 20
        assert stack.client.get("/health").status_code == 200


def _is_open(connection: socket.socket) -> bool:
    connection.setblocking(False)
    try:
        return bool(connection.recv(1))
    except BlockingIOError:
        return True
    except ConnectionError:
        return False
