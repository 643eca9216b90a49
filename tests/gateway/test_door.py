"""Who comes in, and what is refused before an engine hears of it."""

import contextlib
import socket
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from serve.gateway import routes
from serve.quota import Key, digest_key
from serve.roster import Replica, Roster, ServedModel
from tests.fakes.vllm_words import ROUTES
from tests.gateway.stack import FakeEngine, Stack, running_gateway

KEY = "ih-test-key"
KNOWN = Key("k1", digest_key(KEY), "t", scopes=("inference", "admin", "metrics"))
OTHERS = {
    "none": "",
    "wrong": "Authorization: Bearer ih-wrong-key\r\n",
    "without a scope": "Authorization: Bearer bare\r\n",
    "expired": "x-api-key: expired\r\n",
    "revoked": "Authorization: Bearer revoked\r\n",  # in no roster any more
}
KEYS = (
    KNOWN,
    Key("k2", digest_key("bare"), "t", scopes=()),
    Key("k3", digest_key("expired"), "t", KNOWN.name, KNOWN.scopes, expires_at=1.0),
    Key("k4", digest_key("metrics"), "t", scopes=("metrics",)),
    Key("k5", digest_key("foreign"), "other", models=("other-*",)),
)
OPEN = ("/health", "/ready", "/", "/api/version")
GETS = ("/v1/models", "/v1/models/m", "/metrics")
ODD = (
    "//v1/models", "/v1/../health", "/health/../v1/models", "/%68ealth", "/health%2f..",
    "/health/", "/health?x=1/../v1/models#@", "/ready/../metrics", "/metrics/../health",
    "/v1/models/../../health", "/%2e%2e/health", "/v1/%2e%2e/health", "/docs", "/openapi.json",
    "/.", "/HEALTH", "/health;x", "/fake/info", "/pause", "/invocations", "/v1/modelsx",
    "/v1/chat/completions/", "/admin/", "/admin/keys", "/api/tags",
)  # fmt: skip
HOSTS = (
    "localhost:4000/#@x", "localhost/health", "/health", "", "x", "x:80", "localhost", "[::1]",
    "x/health?y=", "x?/health", "x#/health", "x@/health", "/ready", "health", "..", "%2fhealth",
    "x, y", "127.0.0.1:1/health", "x/../health", "x;/health",
)  # fmt: skip
# Ways to write a path that must not lead to another one; {} is the path.
SPELLINGS = (
    "{}", "/{}", "{}/", "{}?", "{}?a=/health", "{}#", "{}#/health", "{};", "{};/health", "{}%00",
    "{}%2f", "{}//", "{}/.", "{}/..", "{}/../health", "/.{}", "/..{}", "/health{}", "/health/..{}",
    "/health/%2e%2e{}", "/health;{}", "/health?{}", "/health#{}", "/ready/../{}", "/x/..{}",
    "{}\\", "{}%20", "{}%23", "{}%3f", "{}?%2e%2e/health", "http://x{}", "http://x/health/..{}",
    "http://health{}", "//health{}", "/%2fhealth{}", "{}\t", "{}%0d%0a", "{}:80", "{}*", "{}&",
)  # fmt: skip
PATHS = tuple(
    sorted({path.decode() for path in routes._EXACT} | {
        prefix.decode() + "x/y" for prefix, _ in routes._PREFIXES
    })
)  # fmt: skip


@pytest.fixture(scope="module")
def locked(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """A gateway that asks for a key; its model has no engine that answers."""
    model = ServedModel("m", (), "ready", 1, 1, (Replica("m-0", "unix:/none.sock"),))
    roster = Roster(1, (model,), KEYS, is_open=False)
    with running_gateway(tmp_path_factory.mktemp("locked"), roster) as stack:
        yield stack


def status_of(stack: Stack, method: str, target: str, host: str = "x", extra: str = "") -> int:
    """The status of a request whose target and Host no client library would let through."""
    with socket.create_connection(stack.address(), timeout=10) as connection:
        head = f"{method} {target} HTTP/1.1\r\nHost: {host}\r\n{extra}Connection: close\r\n\r\n"
        connection.sendall(head.encode())
        return int(connection.makefile("rb").readline().split()[1])


@pytest.mark.parametrize("method", ["GET", "POST", "HEAD", "OPTIONS", "PUT", "DELETE", "PATCH"])
def test_every_route_but_four_needs_a_key(locked: Stack, method: str) -> None:
    for path in (*OPEN, *ROUTES, *GETS, *ODD):
        route = routes.find(path.partition("?")[0].encode())
        opens = route.scope is None
        assert opens == (path.partition("?")[0] in OPEN), path
        status, is_there = status_of(locked, method, path), method in route.methods
        # no model answers here: 503 of /ready
        assert status in ((200, 503) if opens and is_there else (405,) if opens else (401,)), path


def statuses(stack: Stack, requests: list[bytes]) -> Iterator[int]:
    """The statuses of requests, sent one by one on as few connections as possible."""
    connection: socket.socket | None = None
    for request in requests:
        if connection is None:
            connection = socket.create_connection(stack.address(), timeout=10)
            reader = connection.makefile("rb")
        connection.sendall(request)
        yield int(reader.readline().split()[1])
        head = {}
        while b":" in (line := reader.readline()):
            name, _, value = line.partition(b":")
            head[name.strip().lower()] = value.strip()
        reader.read(int(head.get(b"content-length", b"0")))
        if head.get(b"connection") == b"close" or b"content-length" not in head:
            reader.close()
            connection.close()
            connection = None
    if connection is not None:
        reader.close()
        connection.close()


@pytest.mark.parametrize("who", OTHERS)
def test_no_spelling_of_path_and_host_lets_anybody_else_in(locked: Stack, who: str) -> None:
    asked = []
    for number, path in enumerate(PATHS):
        method = "POST" if number % 2 else "GET"
        for spelling, host in zip(SPELLINGS, HOSTS * 2, strict=True):
            target = spelling.format(path)
            head = f"{method} {target} HTTP/1.1\r\nHost: {host}\r\n{OTHERS[who]}"
            asked.append((target, host, f"{head}Content-Length: 0\r\n\r\n".encode()))
    found = statuses(locked, [request for _, _, request in asked])
    for (target, host, _), status in zip(asked, found, strict=True):
        path = target.removeprefix("http://x").partition("?")[0].partition("#")[0]
        if path not in OPEN:
            assert status in (400, 401, 403), (target, host)
            assert status != 403 or who == "without a scope"


def test_a_scope_opens_its_own_routes_alone(locked: Stack) -> None:
    headers = {"authorization": "Bearer metrics"}
    assert locked.client.get("/metrics", headers=headers).status_code == 200
    for path in ("/v1/models", "/admin/keys", "/openapi.json", "/api/tags", "/nowhere"):
        answer = locked.client.get(path, headers=headers)
        assert answer.status_code == 403, path
    headers = {"authorization": "Bearer foreign"}
    for path in ("/metrics", "/admin/keys", "/admin/status"):
        assert locked.client.get(path, headers=headers).status_code == 403


def test_an_expired_key_says_so(locked: Stack) -> None:
    answer = locked.client.get("/v1/models", headers={"x-api-key": "expired"})
    assert answer.status_code == 401 and answer.json()["error"]["code"] == "key_expired"


def test_a_key_of_another_tenant_gets_no_model_that_is_not_its_own(locked: Stack) -> None:
    headers = {"authorization": "Bearer foreign"}
    for path in ("/v1/chat/completions", "/v1/embeddings", "/v1/messages", "/tokenize"):
        answer = locked.client.post(path, headers=headers, json={"model": "m", "messages": []})
        assert answer.status_code == 403 and "other-" not in answer.text, path


def test_the_text_of_a_key_is_in_no_answer_and_no_log(
    locked: Stack, capfd: pytest.CaptureFixture[str]
) -> None:
    canary = "ih-canary42-" + "Zq7" * 16
    values = (
        f"Bearer {canary}", canary, f"Basic {canary}", f"Bearer  {canary} {canary}",
        f"Bearer\t{canary}", f"{canary}\xff", f"Bearer {canary}" * 8,
    )  # fmt: skip
    for value in values:
        for name in ("authorization", "x-api-key"):
            for path in (*PATHS, f"/v1/models/{'x' * 99}"):
                answer = locked.client.get(path, headers={name.encode(): value.encode("latin-1")})
                assert "Zq7Zq7" not in answer.text + str(answer.headers)
    said = capfd.readouterr()
    assert "Zq7Zq7" not in said.out + said.err


@pytest.mark.parametrize("host", HOSTS)
def test_no_host_opens_a_route(locked: Stack, host: str) -> None:
    for path in ("/v1/models", "/metrics", "//health", "http://x/v1/models"):
        assert status_of(locked, "GET", path, host) in (400, 401)
    forwarded = "X-Forwarded-Host: /health\r\nX-Original-URL: /health\r\n"
    assert status_of(locked, "GET", "/v1/models", host, forwarded) in (400, 401)


@pytest.mark.parametrize(
    "headers",
    [
        {"authorization": f"Bearer {KEY}"},
        {"authorization": f"bearer {KEY}"},
        {"x-api-key": KEY},
    ],
)
def test_a_known_key_enters(locked: Stack, headers: dict[str, str]) -> None:
    assert locked.client.get("/v1/models", headers=headers).status_code == 200
    assert locked.client.get("/docs", headers=headers).status_code == 404
    assert locked.client.post("/v1/models", headers=headers).status_code == 405


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"authorization": ""},
        {"authorization": "Bearer wrong"},
        {"authorization": f"Basic {KEY}"},
        {"x-api-key": digest_key(KEY)},
        {"authorization": "Bearer wrong", "x-api-key": KEY},
        {"cookie": f"key={KEY}"},
        {"api-key": KEY},
    ],
)
def test_everything_else_stays_outside(locked: Stack, headers: dict[str, str]) -> None:
    answer = locked.client.get("/v1/models", headers=headers)
    assert answer.status_code == 401 and answer.headers["www-authenticate"] == "Bearer"
    assert answer.json()["error"]["code"] == "invalid_api_key"
    assert KEY not in answer.text and "wrong" not in answer.text
    theirs = locked.client.post("/v1/messages", headers=headers).json()
    assert theirs["error"]["type"] == "authentication_error"


def test_a_stranger_is_refused_before_the_body_is_read(locked: Stack) -> None:
    extra = "Content-Length: 1000000\r\nExpect: 100-continue\r\n"
    assert status_of(locked, "POST", "/v1/chat/completions", "x", extra) == 401


def test_a_key_that_is_taken_back_is_out_at_once(tmp_path: Path) -> None:
    keys = [(Key(name, digest_key(name), "t"),) for name in ("old", "new")]
    with running_gateway(tmp_path, Roster(1, (), keys[0], is_open=False)) as stack:
        headers = {"authorization": "Bearer old"}
        assert stack.client.get("/v1/models", headers=headers).status_code == 200
        stack.control.publish(Roster(2, (), keys[1], is_open=False))
        while stack.client.get("/v1/models", headers=headers).status_code != 401:
            pass


def test_models_are_listed_as_openai_does(stack: Stack, engine: FakeEngine) -> None:
    stack.serve("late")
    listing = stack.client.get("/v1/models").json()
    assert listing["object"] == "list"
    cards = {card["id"]: card for card in listing["data"]}
    assert list(cards) == [engine.name, f"org/{engine.name}", "late", "org/late"]
    assert cards[f"org/{engine.name}"] == {
        "id": f"org/{engine.name}",
        "object": "model",
        "created": 7,
        "owned_by": "inhouse",
        "root": engine.name,
        "max_model_len": 4096,
        "state": "ready",
    }
    for name in (f"org/{engine.name}", f"org%2F{engine.name}"):
        assert stack.client.get(f"/v1/models/{name}").json() == cards[f"org/{engine.name}"]
    stack.forget("late")


def refused(answer: httpx.Response) -> tuple[int, str, str | None]:
    error = answer.json()["error"]
    assert set(error) == {"message", "type", "param", "code"}
    assert answer.headers["content-type"] == "application/json"
    return answer.status_code, error["code"], error["param"]


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        (b"hello", (400, "bad_request", None)),
        (b"[]", (400, "bad_request", None)),
        (b"", (400, "bad_request", None)),
        (b'{"messages":[]}', (400, "bad_request", "model")),
        (b'{"model":{}}', (400, "bad_request", "model")),
        (b'{"model":"nothing-like-it"}', (404, "model_not_found", "model")),
        (b'{"model":"late"}', (503, "model_not_ready", "model")),
        (b'{"model":"m","x":"%b"}' % bytes(b"y" * (1 << 20)), (413, "body_too_large", None)),
    ],
)
def test_a_bad_body_is_refused(
    stack: Stack, body: bytes, expected: tuple[int, str, str | None]
) -> None:
    stack.serve("late")
    answer = stack.client.post("/v1/chat/completions", content=body)
    chunked = stack.client.post("/v1/chat/completions", content=iter([body]))
    assert refused(answer) == refused(chunked) == expected
    assert ("retry-after" in answer.headers) is (expected[0] == 503)
    stack.forget("late")


def test_near_names_are_offered(stack: Stack, engine: FakeEngine) -> None:
    message = stack.post({"model": engine.name.replace("model", "modell")}).json()["error"]
    assert f"'{engine.name}'" in message["message"]
    assert stack.client.get("/v1/models/nothing").status_code == 404


@pytest.mark.parametrize(
    ("method", "path", "expected"),
    [
        ("GET", "/v1/chat/completions", (405, "method_not_allowed", None)),
        ("DELETE", "/v1/models", (405, "method_not_allowed", None)),
        ("POST", "/health", (405, "method_not_allowed", None)),
        ("GET", "/nowhere", (404, "route_not_found", None)),
        ("POST", "/v1/chat/completions/", (404, "route_not_found", None)),
    ],
)
def test_unknown_paths_and_methods_have_error_objects(
    stack: Stack, method: str, path: str, expected: tuple[int, str, None]
) -> None:
    assert refused(stack.client.request(method, path)) == expected


def test_ready_tells_the_states(stack: Stack, engine: FakeEngine) -> None:
    stack.serve("late")
    answer = stack.client.get("/ready")
    assert answer.status_code == 200
    assert answer.json()["models"] == {engine.name: "ready", "late": "starting"}
    models = dict(stack.models)
    stack.models.clear()
    stack.serve("late")
    assert stack.client.get("/ready").status_code == 503
    stack.forget("late")
    stack.models.update(models)


def test_while_draining_nothing_new_is_admitted(stack: Stack, engine: FakeEngine) -> None:
    models = tuple(stack.models.values())
    stack.publish(Roster(99, models, is_draining=True))
    answer = stack.post({"model": engine.name})
    assert refused(answer) == (503, "shutting_down", None) and "retry-after" in answer.headers
    assert stack.client.get("/ready").status_code == 503
    stack.publish(Roster(100, models))
    assert stack.post({"model": engine.name}).status_code == 200


def test_an_endless_head_is_cut(stack: Stack) -> None:
    with socket.create_connection(stack.address(), timeout=10) as connection:
        connection.sendall(b"GET /health HTTP/1.1\r\nhost: x\r\nx: ")
        with contextlib.suppress(ConnectionError):
            for _ in range(64):
                connection.sendall(b"y" * 65536)
        with contextlib.suppress(ConnectionError):
            assert connection.recv(100).startswith(b"HTTP/1.1 400")
    assert stack.client.get("/health").status_code == 200


@pytest.mark.parametrize(
    "header",
    [
        b"accept: a\r\n b: c",
        b"accept: a\rb: c",
        b"accept: a\nb: c",
        b"accept : a",
        b"transfer-encoding: chunked",
        b"content-length: 3",
        b"content-length: +17",
    ],
)
def test_no_header_smuggles_a_second_one_or_a_second_request(
    stack: Stack, engine: FakeEngine, header: bytes
) -> None:
    body = b'{"model":"%b"}' % engine.name.encode()
    head = b"POST /tokenize HTTP/1.1\r\nhost: x\r\n%b\r\ncontent-length: %d\r\n\r\n"
    with socket.create_connection(stack.address(), timeout=10) as connection:
        connection.sendall(head % (header, len(body)) + body)
        assert connection.recv(100).startswith(b"HTTP/1.1 400")
    assert engine.get("/fake/info").json()["received"] == 0
