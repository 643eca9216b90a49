"""What is said by hand: hostile paths, broken requests, ranges, keys."""

import random
from collections.abc import Iterator
from pathlib import Path

import pytest

from serve.mirror import Terms
from serve.store import Manifest
from tests.mirror.houses import (
    COMMIT,
    House,
    Running,
    body_of,
    read_all,
    serving,
    settle,
    status_of,
)

SECRET = b"not for anybody"
FILES = {"config.json": b'{"a": 1}', "sub/a.json": b"[1]", "model.safetensors": b"w" * 5000}


@pytest.fixture
def mirror(house: House) -> Iterator[Running]:
    seal = house.hold("org/m", FILES)
    for place in (seal.path, seal.path.parent, house.home, house.folder):
        (place / "secret.txt").write_bytes(SECRET)
    with serving(house.store) as running:
        yield running


def get(path: bytes) -> bytes:
    return b"GET " + path + b" HTTP/1.1\r\nHost: m\r\nConnection: close\r\n\r\n"


@pytest.mark.parametrize(
    "path",
    [
        "secret.txt", "../secret.txt", "%2e%2e/secret.txt", "..%2fsecret.txt", "sub/../secret.txt",
        "%2e%2e%2fsecret.txt", "....//secret.txt", "/etc/passwd", "%2fetc%2fpasswd", "//etc/passwd",
        "config.json%00", "config.json/", "config.json%20", "./config.json", "sub%5ca.json",
        "CONFIG.JSON", "%252e%252e/secret.txt", "sub", "sub/", "", "config.json/..",
    ],
)  # fmt: skip
def test_only_the_table_s_files_are_given(mirror: Running, path: str) -> None:
    for url in (f"/org/m/resolve/main/{path}", f"/org/m/resolve/{COMMIT}/{path}"):
        answer = mirror.say(get(url.encode()))
        assert status_of(answer) in (400, 404) and SECRET not in answer


@pytest.mark.parametrize(
    "path",
    [
        b"/../../secret.txt", b"/org/m/resolve/../main/config.json", b"/org%2Fm/resolve/main/x",
        b"/org/../org/m/resolve/main/config.json", b"//org/m/resolve/main/config.json",
        b"/org/m//resolve/main/config.json", b"/api/models/..%2f..", b"*", b"/%", b"/%zz",
        b"/org/m/resolve/main/\xff", b"/org/m/resolve/" + b"a" * 8000, b"/?" + b"a=1&" * 2000,
    ],
)  # fmt: skip
def test_odd_targets_get_nothing(mirror: Running, path: bytes) -> None:
    assert status_of(mirror.say(get(path))) in (400, 404, 405)


def test_the_absolute_form_is_the_same_place(mirror: Running) -> None:
    answer = mirror.say(get(b"http://anywhere/org/m/resolve/main/config.json"))
    assert body_of(answer) == FILES["config.json"]
    assert status_of(mirror.say(get(b"http://anywhere/secret.txt"))) == 404


def test_mutations_of_a_path_give_the_table_s_files_or_nothing(mirror: Running) -> None:
    rng = random.Random(11)
    good = b"/org/m/resolve/main/sub/a.json"
    pieces = [b"..", b"%2e%2e", b"/", b"%2f", b"%00", b"\\", b"//", b"secret.txt", b"%", b";", b"?",
              b"#", b"\xc0\xae", b"%c0%ae", b"main", b"../" * 8]  # fmt: skip
    for _ in range(150):
        path = bytearray(good)
        for _ in range(rng.randint(1, 3)):
            at = rng.randrange(1, len(path) + 1)
            cut = rng.choice((0, 0, rng.randint(1, 4)))
            path[at : at + cut] = rng.choice(pieces)
        answer = mirror.say(get(bytes(path)))
        assert SECRET not in answer
        if status_of(answer) == 200:
            assert body_of(answer) in FILES.values(), bytes(path)


def test_mutations_of_a_request_break_nothing(mirror: Running) -> None:
    rng = random.Random(7)
    good = (
        b"POST /api/models/org/m/paths-info/main HTTP/1.1\r\nHost: m\r\nContent-Length: 17\r\n"
        b"Range: bytes=1-3\r\nIf-None-Match: *\r\n\r\npaths=config.json"
        b"GET /org/m/resolve/main/sub/a.json HTTP/1.1\r\nRange: bytes=0-1\r\n\r\n"
    )
    for _ in range(150):
        sent = bytearray(good)
        for _ in range(rng.randint(1, 4)):
            at = rng.randrange(len(sent))
            match rng.randrange(3):
                case 0:
                    sent[at] = rng.randrange(256)
                case 1:
                    del sent[at : at + rng.randint(1, 20)]
                case _:
                    sent[at:at] = rng.choice((b"\r\n", b"\0", b": ", b"9" * 30, b"%", b" "))
        answer = mirror.say(bytes(sent))
        assert SECRET not in answer
        assert status_of(answer) in (0, 200, 206, 304, 400, 404, 405, 408, 413, 416)
    assert mirror.ask("/healthz").status == 200


@pytest.mark.parametrize(
    ("sent", "status"),
    [
        (b"nonsense\r\n\r\n", 400),
        (b"GET / HTTP/9.9\r\n\r\n", 400),
        (b"GET /healthz HTTP/1.1\r\nbad header\r\n\r\n", 400),
        (b"GET /healthz HTTP/1.1\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n", 400),
        (b"GET /healthz HTTP/1.1\r\nContent-Length: -1\r\n\r\n", 400),
        (b"GET /healthz HTTP/1.1\r\nX: " + b"a" * 100_000 + b"\r\n\r\n", 431),
        (b"GET /" + b"a" * 100_000 + b" HTTP/1.1\r\n\r\n", 431),
        (b"POST /api/models/org/m/paths-info/main HTTP/1.1\r\nContent-Length: 300000\r\n\r\n"
         + b"a" * 300_000, 413),
        (b"DELETE /api/models/org/m HTTP/1.1\r\n\r\n", 405),
        (b"PUT /org/m/resolve/main/config.json HTTP/1.1\r\nContent-Length: 1\r\n\r\nx", 405),
        (b"POST /org/m/resolve/main/config.json HTTP/1.1\r\nContent-Length: 1\r\n\r\nx", 405),
        (b"GET /api/models/org/m/paths-info/main HTTP/1.1\r\n\r\n", 405),
        (b"CONNECT a:1 HTTP/1.1\r\n\r\n", 400),
    ],
)  # fmt: skip
def test_broken_requests(mirror: Running, sent: bytes, status: int) -> None:
    assert status_of(mirror.say(sent)) == status
    assert mirror.ask("/healthz").status == 200


def test_one_connection_many_requests(mirror: Running) -> None:
    request = b"GET /org/m/resolve/main/config.json HTTP/1.1\r\nHost: m\r\n\r\n"
    with mirror.connect() as client:
        client.sendall(request * 3 + request.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n"))
        answer = read_all(client)
    assert answer.count(b"HTTP/1.1 200 OK") == 4
    assert answer.count(FILES["config.json"]) == 4
    assert answer.count(b"Connection: keep-alive") == 3


def test_an_old_client_is_answered_and_left(mirror: Running) -> None:
    with mirror.connect() as client:
        client.sendall(b"GET /healthz HTTP/1.0\r\n\r\n")
        answer = read_all(client)
    assert answer.startswith(b"HTTP/1.1 200") and b"Connection: close" in answer


def test_ranges_and_names_over_the_wire(mirror: Running) -> None:
    url = "/org/m/resolve/main/model.safetensors"
    whole = mirror.ask(url)
    etag = whole.headers["etag"]
    assert whole.headers["x-repo-commit"] == COMMIT
    assert whole.headers["x-linked-etag"] == etag and whole.headers["x-linked-size"] == "5000"
    assert whole.headers["accept-ranges"] == "bytes" and len(etag) == 66
    head = mirror.ask(url, "HEAD")
    assert (head.body, head.headers["content-length"]) == (b"", "5000")
    part = mirror.ask(url, Range="bytes=10-19", If_Range=etag)
    assert (part.status, part.headers["content-range"]) == (206, "bytes 10-19/5000")
    beyond = mirror.ask(url, Range="bytes=5000-")
    assert (beyond.status, beyond.headers["content-range"]) == (416, "bytes */5000")
    assert mirror.ask(url, If_None_Match=etag).status == 304
    small = mirror.ask("/org/m/resolve/main/config.json")
    assert len(small.headers["etag"]) == 42 and "x-linked-etag" not in small.headers


def test_what_is_asked_is_counted(mirror: Running) -> None:
    mirror.ask("/org/m/resolve/main/config.json")
    mirror.ask("/org/none/resolve/main/config.json")
    mirror.ask("/whatever/somebody/types")
    count = "inhouse_mirror_requests_total"
    assert mirror.metric(f'{count}{{route="resolve",status="200"}}') == 1
    assert mirror.metric(f'{count}{{route="resolve",status="404"}}') == 1
    assert mirror.metric(f'{count}{{route="other",status="404"}}') == 1
    sent = len(FILES["config.json"])
    assert mirror.metric('inhouse_mirror_sent_bytes_total{repo="org/m"}') == sent
    assert b"none" not in mirror.ask("/metrics").body
    assert b"whatever" not in mirror.ask("/metrics").body


def test_new_weights_appear_and_removed_ones_go(mirror: Running, house: House) -> None:
    seal = house.hold("org/new", FILES)
    assert mirror.ask("/api/models/org/new").status == 200
    settle(house)
    house.forget(seal)
    assert mirror.ask("/api/models/org/new").status == 404


def test_a_store_that_cannot_be_read_is_told(caplog: pytest.LogCaptureFixture) -> None:
    class Gone:
        def manifests(self) -> tuple[Manifest, ...]:
            raise OSError(5, "Input/output error")

        def stamp(self) -> int:
            return 1

    with serving(Gone()) as mirror:
        assert mirror.ask("/api/models").status == 503
        assert mirror.ask("/healthz").status == 200
    assert "Input/output error" in caplog.text


def test_nothing_of_a_key_is_logged(
    house: House, caplog: pytest.LogCaptureFixture, tmp_path: Path
) -> None:
    house.hold("org/m", FILES)
    with caplog.at_level("DEBUG"), serving(house.store, Terms(key="s3cret-key")) as mirror:
        url = "/org/m/resolve/main/config.json"
        assert mirror.ask(url, Authorization="Bearer s3cret-key").status == 200
        assert mirror.ask(url, Authorization="Bearer s3cret-kez").status == 401
        assert mirror.ask("/typed?token=s3cret-key").status == 401
    assert "s3cret" not in caplog.text and "typed" not in caplog.text
    assert "sent: repo=org/m file=config.json" in caplog.text
    assert "s3cret" not in repr(Terms(key="s3cret-key"))
