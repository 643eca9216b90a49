"""How requests for engines come in: in pieces, in a row, not at all."""

import socket

import pytest

from tests.gateway.stack import FakeEngine, Stack, until

PATH = b"/v1/chat/completions"
JSON = b'{"model":"%b","messages":[{"role":"user","content":"hi"}],"max_tokens":1}'


def request(body: bytes, more: bytes = b"", target: bytes = PATH) -> bytes:
    head = b"POST %b HTTP/1.1\r\nHost: localhost\r\n%bContent-Length: %d\r\n\r\n"
    return head % (target, more, len(body)) + body


def rest_of(connection: socket.socket) -> bytes:
    """All that comes until the other side closes."""
    parts = []
    while data := connection.recv(65536):
        parts.append(data)
    return b"".join(parts)


def test_a_body_comes_in_as_many_pieces_as_its_client_likes(
    stack: Stack, engine: FakeEngine
) -> None:
    raw = request(JSON % engine.name.encode(), b"Expect: 100-continue\r\nConnection: close\r\n")
    head, body = raw.split(b"\r\n\r\n")
    with socket.create_connection(stack.address(), timeout=10) as connection:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        connection.sendall(head + b"\r\n\r\n")
        assert connection.recv(65536) == b"HTTP/1.1 100 Continue\r\n\r\n"
        for at in range(0, len(body), 7):
            connection.sendall(body[at : at + 7])
        assert rest_of(connection).startswith(b"HTTP/1.1 200 OK\r\n")
    assert engine.last()["body"] == body.decode()
    assert engine.get("/fake/info").json()["received"] == 1


def test_no_number_of_refusals_in_a_row_is_too_much(stack: Stack) -> None:
    count = 1500  # more than Python likes to have calls in calls
    raw = request(b"{}") * (count - 1) + request(b"{}", b"Connection: close\r\n")
    with socket.create_connection(stack.address(), timeout=10) as connection:
        connection.sendall(raw)
        assert rest_of(connection).count(b"HTTP/1.1 400 Bad Request\r\n") == count


@pytest.mark.parametrize("target", [PATH + b"?a=b", b"http://localhost" + PATH])
def test_other_ways_to_write_a_path_lead_to_the_same(
    stack: Stack, engine: FakeEngine, target: bytes
) -> None:
    raw = request(JSON % engine.name.encode(), b"Connection: close\r\n", target)
    with socket.create_connection(stack.address(), timeout=10) as connection:
        connection.sendall(raw)
        assert rest_of(connection).startswith(b"HTTP/1.1 200 OK\r\n")


def test_who_leaves_within_a_body_has_asked_nothing(stack: Stack, engine: FakeEngine) -> None:
    raw = request(JSON % engine.name.encode())
    with socket.create_connection(stack.address(), timeout=10) as connection:
        connection.sendall(raw[:-5])
    answer = stack.post({"model": engine.name, "messages": [], "max_tokens": 1})
    assert answer.status_code == 200
    until(lambda: engine.get("/fake/info").json()["received"] == 1)
