"""Finding a spec by what people call it."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

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
        ("qwen2.5-7b-instuct", "qwen2.5-7b-instruct"),
        ("Qwen/Qwen2.5-7B-Instruct-AQW", "qwen2.5-7b-instruct:awq"),
        ("deepseek r1", "deepseek-r1"),
        ("deepseek_v3.1", "deepseek-v3.1"),
        ("llama3.1", "llama-3.1-8b-instruct"),
        ("gpt oss", "gpt-oss-20b"),
        ("kimi", "kimi-k2-instruct"),
        ("meta-llama/Meta-Llama-3.1-8B-Instruct", "llama-3.1-8b-instruct"),
        ("THUDM/glm-4-9b-chat", "glm-4-9b-chat"),
    ],
)
def test_an_unknown_name_gets_near_matches(name: str, expected: str) -> None:
    with pytest.raises(UnknownModel) as caught:
        CATALOG.find(name)
    assert caught.value.name == name
    assert expected in caught.value.near
    assert len(caught.value.near) <= 3


@pytest.mark.parametrize(
    ("name", "first"),
    [
        ("qwen2.5-7b-instuct", "qwen2.5-7b-instruct"),
        ("Qwen/Qwen2.5-7B-Instruct-AQW", "qwen2.5-7b-instruct:awq"),
        ("deepseek r1", "deepseek-r1"),
        ("llama3.1", "llama-3.1-8b-instruct"),
    ],
)
def test_the_likeliest_comes_first(name: str, first: str) -> None:
    with pytest.raises(UnknownModel) as caught:
        CATALOG.find(name)
    assert caught.value.near[0] == first


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("qwen2.5:7b", "qwen2.5-7b-instruct"),
        ("llama3.1:8b", "llama-3.1-8b-instruct"),
        ("gpt-oss:20b", "gpt-oss-20b"),
        ("deepseek-r1:7b", "deepseek-r1-distill-qwen-7b"),
        ("ZhipuAI/GLM-4-32B-0414", "glm-4-32b-0414"),
    ],
)
def test_names_of_elsewhere_are_found(name: str, expected: str) -> None:
    assert CATALOG.find(name).name == expected


@given(st.text(max_size=60))
def test_any_text_is_found_or_refused(name: str) -> None:
    try:
        assert CATALOG.find(name) in CATALOG.specs
    except UnknownModel as error:
        assert len(error.near) <= 3 and all(CATALOG.find(each) for each in error.near)


def test_a_name_like_no_other_gets_none() -> None:
    with pytest.raises(UnknownModel) as caught:
        CATALOG.find("zzz")
    assert caught.value.near == ()
