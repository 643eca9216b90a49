"""Finding a spec by what people call it."""

import pytest

from serve.catalog import load_catalog
from serve.errors import UnknownModel

CATALOG = load_catalog()


@pytest.mark.parametrize(
    "name", ["smollm2-135m-instruct", "smollm2", "starter", "Starter", " smollm2 "]
)
def test_names_and_aliases_are_found_in_any_case(name: str) -> None:
    assert CATALOG.find(name).name == "smollm2-135m-instruct"


@pytest.mark.parametrize("name", ["Qwen/Qwen3-8B", "qwen/qwen3-8b", "QWEN3-8B"])
def test_repository_ids_are_found(name: str) -> None:
    assert CATALOG.find(name).name == "qwen3-8b"


@pytest.mark.parametrize("spec", CATALOG.specs, ids=lambda spec: str(spec.name))
def test_every_spec_is_found_by_its_own_name_and_origin(spec: object) -> None:
    name, origin = getattr(spec, "name", ""), getattr(spec, "origin", "")
    assert CATALOG.find(name) is spec
    if "/" in origin:
        assert CATALOG.find(origin) is spec


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("qwen3-8", "qwen3-8b"),
        ("deepsek-r1", "deepseek-r1"),
        ("Qwen/Qwen3-8B-FP", "qwen3-8b:fp8"),
        ("stater", "smollm2-135m-instruct"),
        ("qwen3-8b:fp16", "qwen3-8b:fp8"),
    ],
)
def test_an_unknown_name_gets_near_matches(name: str, expected: str) -> None:
    with pytest.raises(UnknownModel) as caught:
        CATALOG.find(name)
    assert caught.value.name == name
    assert expected in caught.value.near
    assert len(caught.value.near) <= 3


def test_a_name_like_no_other_gets_none() -> None:
    with pytest.raises(UnknownModel) as caught:
        CATALOG.find("zzz")
    assert caught.value.near == ()
