"""The shipped shapes: each must read as a config.json does, and agree with what else is known."""

import json
import re
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest

import serve.catalog
from serve.catalog import ModelSpec, load_catalog
from serve.geometry import read_geometry
from serve.shape import Experts, Geometry, Heads, Latent, Part
from serve.sources import DirSource, HubSource, ModelScopeSource
from tests.plan.known import FACTS

TABLE: dict[str, dict[str, Any]] = json.loads(
    (Path(serve.catalog.__file__).parent / "shapes.json").read_text(encoding="utf-8")
)
SPECS = load_catalog().specs
SHAPED = [spec for spec in SPECS if spec.shape is not None]
BASES = [spec for spec in SHAPED if spec.variant_of is None]
# Nobody has confirmed the shape of the first, or how the KV cache of the others is meant.
SHAPELESS = {
    "glm-4-9b-chat-1m", "llama-3.1-8b-instruct:fp8", "llama-3.1-70b-instruct:fp8",
}  # fmt: skip


def by_name(spec: ModelSpec) -> str:
    return spec.name


def shape(spec: ModelSpec) -> dict[str, Any]:
    assert spec.shape is not None
    return dict(spec.shape)


def parameters(spec: ModelSpec) -> float:
    """Of the model before it was packed. The tables of cosines and draft layers are none."""
    config = {name: value for name, value in shape(spec).items() if name != "quantization_config"}
    parts = read_geometry(config, dtype="bfloat16").parts
    counted = [part for part in parts if part.place != "mtp" and not is_table(part)]
    return sum(part.n_bytes for part in counted) / 2


def is_table(part: Part) -> bool:
    return (part.place, part.cut) == ("each", "whole")


def published_parameters(spec: ModelSpec) -> tuple[float, float]:
    """(the number, half of its last digit): "9B" may be 9.4 billion."""
    match = re.match(r"(\d+)\.?(\d*)([BM])", spec.parameters)
    assert match is not None
    unit = {"M": 1e6, "B": 1e9}[match[3]]
    return float(f"{match[1]}.{match[2]}") * unit, unit * 0.5 / 10 ** len(match[2])


def test_nearly_all_models_have_a_shape() -> None:
    assert {spec.name for spec in SPECS} - {spec.name for spec in SHAPED} == SHAPELESS


@pytest.mark.parametrize("spec", SHAPED, ids=by_name)
def test_a_shape_reads_as_a_config_does(spec: ModelSpec) -> None:
    geometry = read_geometry(shape(spec))
    assert geometry.architecture == spec.architecture
    assert geometry.max_position is not None
    assert geometry.max_position >= spec.context_tokens
    assert geometry.dtype == "bfloat16"
    assert not any("not known" in note for note in geometry.notes)


@pytest.mark.parametrize("spec", SHAPED, ids=by_name)
def test_a_shape_agrees_with_the_facts(spec: ModelSpec) -> None:
    if spec.facts.geometry is None:
        pytest.skip("the entry names no figures")
    known = {key: value for key, value in asdict(spec.facts.geometry).items() if value is not None}
    assert known.items() <= figures(read_geometry(shape(spec))).items()


def figures(geometry: Geometry) -> dict[str, int | None]:
    """The figures of a catalog entry, by their names there."""
    found: dict[str, int | None] = {
        "layers": len(geometry.layers), "hidden": geometry.hidden, "vocab": geometry.vocab,
    }  # fmt: skip
    for layer in set(geometry.layers):
        if isinstance(layer.attention, Latent):
            latent = layer.attention
            found |= {
                "heads": latent.heads, "kv_lora_rank": latent.kv_rank,
                "q_lora_rank": latent.query_rank, "rope_head_dim": latent.rope_dim,
                "nope_head_dim": latent.nope_dim, "value_head_dim": latent.value_dim,
            }  # fmt: skip
        elif isinstance(layer.attention, Heads):
            heads = layer.attention
            found |= {"heads": heads.heads, "kv_heads": heads.kv_heads, "head_dim": heads.head_dim}
            found |= {"window": heads.window} if heads.window else {}
        if isinstance(layer.feed_forward, Experts):
            experts = layer.feed_forward
            found |= {"experts": experts.count, "experts_per_token": experts.per_token}
    return found


@pytest.mark.parametrize("spec", BASES, ids=by_name)
def test_a_shape_has_the_published_number_of_parameters(spec: ModelSpec) -> None:
    published, half_a_digit = published_parameters(spec)
    assert parameters(spec) == pytest.approx(published, rel=0.03, abs=half_a_digit)


@pytest.mark.parametrize(
    "spec", [spec for spec in SHAPED if spec.variant_of is not None], ids=by_name
)
def test_a_variant_is_packed_smaller(spec: ModelSpec) -> None:
    assert spec.variant_of is not None
    variant = read_geometry(shape(spec))
    base = read_geometry(shape(load_catalog().find(spec.variant_of)))
    kind = spec.name.partition(":")[2]
    assert variant.quant is not None
    assert (variant.quant.method, variant.quant.bits) == {
        "fp8": ("fp8", 8), "awq": ("awq", 4), "gptq-int4": ("gptq", 4), "gptq-int8": ("gptq", 8),
    }[kind]  # fmt: skip
    assert sum(part.n_bytes for part in variant.parts) < sum(part.n_bytes for part in base.parts)


def test_qwen_pads_the_packed_72b() -> None:
    """29568 is 231 groups of 128: no number of cards would divide them."""
    catalog = load_catalog()
    for name in ("qwen2-72b-instruct", "qwen2.5-72b-instruct"):
        assert shape(catalog.find(name))["intermediate_size"] == 29568
        assert shape(catalog.find(f"{name}:awq"))["intermediate_size"] == 29696


@pytest.mark.parametrize("name", TABLE["shapes"])
def test_an_entry_of_the_table(name: str) -> None:
    entry = TABLE["shapes"][name]
    assert entry.keys() <= {"source", "config", "like", "packing"}
    assert "like" in entry or entry["source"]
    assert "like" not in entry or entry["like"] in TABLE["shapes"]
    assert "packing" not in entry or entry["packing"] in TABLE["packings"]
    assert any(spec.origin == name for spec in SPECS), "a shape of no model"


@pytest.mark.parametrize(
    "spec", [spec for spec in SHAPED if isinstance(spec.source, HubSource)], ids=by_name
)
def test_a_shape_weighs_what_the_published_config_weighs(spec: ModelSpec) -> None:
    path = FACTS / "configs" / f"{spec.origin.replace('/', '__')}.json"
    if not path.is_file():
        pytest.skip("there is no published config.json beside this checkout")
    theirs = read_geometry(json.loads(path.read_text(encoding="utf-8")))
    ours = read_geometry(shape(spec))
    assert (ours.layers, ours.parts) == (theirs.layers, theirs.parts)
    assert (ours.max_position, ours.rotary_dim, ours.is_tied, ours.mtp_layers) == (
        theirs.max_position, theirs.rotary_dim, theirs.is_tied, theirs.mtp_layers,
    )  # fmt: skip


def test_the_same_model_elsewhere_has_the_same_shape() -> None:
    spec = load_catalog().find("glm-4.5")
    there = spec.with_source("modelscope")
    assert isinstance(there.source, ModelScopeSource) and there.source.repo == "ZhipuAI/GLM-4.5"
    assert there.shape == spec.shape


def test_a_folder_has_a_config_of_its_own(tmp_path: Path) -> None:
    assert load_catalog().find("glm-4.5").with_source(DirSource(tmp_path)).shape is None


def test_an_unknown_repository_has_no_shape() -> None:
    assert load_catalog().find("glm-4.5").with_source(HubSource("some/model")).shape is None
    elsewhere = ModelScopeSource("some/model")
    assert load_catalog().find("glm-4.5").with_source(elsewhere).shape is None
