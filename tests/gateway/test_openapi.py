"""Our OpenAPI document: whole, and true of a running gateway."""

import json
from collections.abc import Iterator
from pathlib import Path

import httpx
import jsonschema
import pytest

from serve.gateway import admin, ollama, openapi_words, routes
from serve.gateway.openapi import document
from serve.roster import Replica, Roster, ServedModel
from tests.gateway.api_walk import walk
from tests.gateway.stack import Stack, running_engine, running_gateway

_EXAMPLES = 5  # of each operation and kind; scripts/campaign openapi has thousands


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    folder = tmp_path_factory.mktemp("gw")
    with running_engine(folder / "e.sock", "m") as engine:
        replica = Replica("m-0", f"unix:{engine.socket}")
        roster = Roster(1, (ServedModel("m", (), "ready", 4096, 7, (replica,)),))
        with running_gateway(folder, roster, spool_folder=str(folder / "spool")) as stack:
            yield stack


def test_every_route_stands_in_it() -> None:
    paths = json.loads(document())["paths"]
    for path in routes.RELAYED:
        assert list(paths[path]) == ["post"], path
    for raw, route in routes._EXACT.items():
        for method in route.methods:
            assert method.lower() in paths[raw.decode()], (method, raw)
    for row in admin._ROWS:
        path = row.path.pattern.replace("([a-z0-9]{1,64})", "{id}")
        assert row.method.lower() in paths[path], path
    for path in ollama.PATHS:
        assert path in paths, path


def test_schemas_are_schemas_and_references_lead_somewhere() -> None:
    whole = json.loads(document())
    for schema in (openapi_words.ASKED | openapi_words.TOLD).values():
        jsonschema.Draft202012Validator.check_schema(schema)

    def follow(value: object) -> None:
        if isinstance(value, dict):
            if "$ref" in value:
                _, *words = value["$ref"].split("/")
                found = whole
                for word in words:
                    found = found[word]
            for each in value.values():
                follow(each)
        elif isinstance(value, list):
            for each in value:
                follow(each)

    follow(whole)


def test_it_is_served_to_whoever_has_a_key(stack: Stack, tmp_path: Path) -> None:
    answer = stack.client.get("/openapi.json")
    assert answer.content == document() and answer.headers["content-type"] == "application/json"
    with running_gateway(tmp_path, Roster(1, is_open=False)) as closed:
        assert httpx.get(f"{closed.url}/openapi.json").status_code == 401


def test_a_gateway_answers_as_the_document_says(stack: Stack) -> None:
    done = walk(stack.url, _EXAMPLES, seed=1, model="m")
    assert not done.failures, "\n".join(done.failures)[:5000]
    assert done.count > 200 and {200, 400, 404} <= set(done.statuses), done.statuses
