"""The table of routes: what is not in it is nowhere."""

import pytest

from serve.gateway import routes
from serve.gateway.body import read
from serve.gateway.estimate import Estimate
from tests.fakes.vllm_words import ROUTES

ODD = (
    "//v1/models", "/v1/../health", "/health/", "/%68ealth", "/HEALTH", "/v1/modelsx", "/docs",
    "/v1/chat/completions/", "/v1/chat/completions?x", "/invocations", "/v1/load_lora_adapter",
    "/sleep", "/collective_rpc", "", "*", "/.", "/?", "/admin", "/api", "http://x/v1/models",
    "/api/versions", "/api//version", "/api/version/",
)  # fmt: skip


@pytest.mark.parametrize("path", ODD)
def test_odd_paths_lead_nowhere_and_need_a_key(path: str) -> None:
    route = routes.find(path.encode())
    assert route is routes.NOWHERE or (route.name == "/api" and path.startswith("/api/"))
    assert route.scope is not None


def test_every_route_of_an_engine_that_we_pass_on_is_posted_to() -> None:
    assert set(ROUTES) <= set(routes.RELAYED)
    for path in routes.RELAYED:
        route = routes.find(path.encode())
        assert (route.name, route.methods, route.scope) == (path, ("POST",), "inference")


def test_only_four_routes_need_no_key() -> None:
    rows = {**routes._EXACT, **dict(routes._PREFIXES)}
    scopes = {path.decode(): route.scope for path, route in rows.items()}
    scopes["/admin/keys"] = routes.find(b"/admin/keys").scope
    open_ones = {path for path, scope in scopes.items() if scope is None}
    assert open_ones == {"/health", "/ready", "/", "/api/version"}
    assert (scopes["/metrics"], scopes["/admin/keys"]) == ("metrics", "admin")


def test_an_estimate_learns() -> None:
    estimate = Estimate()
    plain, capped = read(b'{"model":"m"}'), read(b'{"model":"m","max_tokens":50,"n":3}')
    assert estimate.input_tokens(1000) == 301
    assert estimate.output_tokens(capped, 4096) == 150
    assert estimate.output_tokens(capped, 20) == 60
    assert estimate.output_tokens(plain, 100) == 100
    assert estimate.output_tokens(plain, 0) == 257
    for _ in range(500):
        estimate.learn(1000, 500, 20)
    assert 490 < estimate.input_tokens(1000) < 510
    assert 20 < estimate.output_tokens(plain, 4096) < 25
    estimate.learn(1, 10**9, 0)
    assert estimate.input_tokens(1000) < 520
    for odd in (b'"max_tokens":-1', b'"max_tokens":"9"', b'"max_tokens":null', b'"n":0'):
        assert estimate.output_tokens(read(b'{"model":"m",%b}' % odd), 4096) < 25
