"""`inhouse plan`: for people, for programs, for what is here and for what is only imagined."""

import json
from pathlib import Path
from typing import Any

import pytest

from serve.cli.errors import FIT, MODEL, STORE, USAGE
from tests.cli.conftest import Inhouse
from tests.fakes.fake_hub import FakeHub
from tests.fakes.tiny import llama_file
from tests.store.models import safetensors

GIB = 2**30
# What of it must be there, always: scripts read it.
KEYS = {
    "fits", "kv_tokens", "max_concurrency", "kv_bytes_per_token", "weights_bytes_per_gpu",
    "activation_bytes", "graph_bytes", "other_bytes", "available_kv_bytes", "missing_bytes",
    "cures",
}  # fmt: skip
LLAMA_8B: dict[str, Any] = {
    "architectures": ["LlamaForCausalLM"], "model_type": "llama", "torch_dtype": "bfloat16",
    "num_hidden_layers": 32, "num_attention_heads": 32, "num_key_value_heads": 8,
    "hidden_size": 4096, "intermediate_size": 14336, "vocab_size": 128256,
    "max_position_embeddings": 131072, "tie_word_embeddings": False,
}  # fmt: skip


@pytest.fixture
def config(tmp_path: Path) -> Path:
    path = tmp_path / "config.json"
    path.write_text(json.dumps(LLAMA_8B))
    return path


def planned(inhouse: Inhouse, *arguments: str, code: int = 0) -> dict[str, Any]:
    ran = inhouse("plan", *arguments, "--json")
    assert ran.code == code, ran.err
    record = json.loads(ran.out)
    assert isinstance(record, dict) and set(record) >= KEYS
    return record


def test_every_decision_fixed_by_hand(inhouse: Inhouse, config: Path) -> None:
    record = planned(
        inhouse, str(config), "--gpus", "2x79.2GiB", "--gpu-memory-utilization", "0.9",
        "--max-model-len", "16000", "--tensor-parallel-size", "2", "--pipeline-parallel-size", "1",
        "--kv-cache-dtype", "fp8", "--max-num-batched-tokens", "8192", "--max-num-seqs", "256",
        "--block-size", "16", "--engine-version", "0.32", "--available-kv-gib", "32.0",
    )  # fmt: skip
    assert record["fits"] is True
    assert record["kv_bytes_per_token"] == 32 * 4 * 2 * 128
    assert record["available_kv_bytes"] == 32 * GIB
    assert abs(record["kv_tokens"] / (32 * GIB / record["kv_bytes_per_token"]) - 1) < 0.001
    assert record["max_concurrency"] == pytest.approx(record["kv_tokens"] / 16000, rel=1e-3)
    assert record["missing_bytes"] == 0 and record["cures"] == []


def test_what_an_engine_has_logged_counts_beyond_the_config(inhouse: Inhouse, config: Path) -> None:
    record = planned(
        inhouse, str(config), "--gpus", "80GiB", "--max-model-len", "262144",
        "--available-kv-gib", "6.94", code=FIT,
    )  # fmt: skip
    assert record["layout"]["context_tokens"] == 262144
    assert record["needed_kv_bytes"] == pytest.approx(32 * GIB, rel=1e-3)
    assert any("config.json allows 131,072 tokens" in note for note in record["notes"])


def test_the_sum_is_whole(inhouse: Inhouse, config: Path) -> None:
    record = planned(inhouse, str(config), "--gpus", "80GiB", "--context", "32k")
    terms = ("weights_bytes_per_gpu", "activation_bytes", "graph_bytes", "other_bytes")
    assert (
        sum(record[term] for term in terms) + record["available_kv_bytes"]
        == (record["budget_bytes"])
    )
    assert record["weights_bytes_per_gpu"] == pytest.approx(14.99 * GIB, rel=0.002)


def test_what_does_not_fit_says_what_would(inhouse: Inhouse, config: Path) -> None:
    record = planned(inhouse, str(config), "--gpus", "RTX 4090", "--context", "128k", code=FIT)
    assert record["fits"] is False
    assert record["missing_bytes"] > 0
    assert 1 <= len(record["cures"]) <= 3
    for cure in record["cures"]:
        assert cure["change"] and cure["price"]


def test_a_cure_that_is_typed_cures(inhouse: Inhouse, config: Path) -> None:
    asked = [str(config), "--gpus", "RTX 4090", "--context", "48k"]
    record = planned(inhouse, *asked, code=FIT)
    typed = [cure["flags"] for cure in record["cures"] if cure["flags"]]
    assert typed, "some cure can be typed"
    for flags in typed:
        kept = asked[:3] if {"--context", "--max-model-len"} & set(flags) else asked
        kept = kept if "--gpus" not in flags else [asked[0], *kept[3:]]
        assert planned(inhouse, *kept, *flags)["fits"] is True


def test_people_see_a_table_with_bars(inhouse: Inhouse, config: Path) -> None:
    ran = inhouse("plan", str(config), "--gpus", "1x H100", "--context", "32k")
    assert ran.code == 0, ran.err
    lines = ran.out.splitlines()
    assert "fits on" in lines[0] and "H100" in lines[0]
    weights = next(line for line in lines if line.startswith("weights "))
    assert "15.0 GiB" in weights and "█" in weights and "exact" in weights
    assert any("requests" in line and "32k tokens at once" in line for line in lines)
    assert any("decode, at most" in line for line in lines)


def test_people_see_the_ways_out(inhouse: Inhouse, config: Path) -> None:
    ran = inhouse("plan", str(config), "--gpus", "RTX 4090", "--context", "128k")
    assert ran.code == FIT
    assert "does not fit on" in ran.out.splitlines()[0]
    assert "missing" in ran.out and "  1. " in ran.out


def test_models_and_machines_are_compared(inhouse: Inhouse) -> None:
    asked = ("qwen3-8b", "qwen3-14b", "--gpus", "RTX 4090", "--gpus", "2x L40S", "--context", "8k")
    ran = inhouse("plan", *asked)
    assert ran.code == 0, ran.err
    rows = ran.out.splitlines()[2:]
    assert [row.split()[0] for row in rows] == ["qwen3-8b", "qwen3-8b", "qwen3-14b", "qwen3-14b"]
    records = json.loads(inhouse("plan", *asked, "--json").out)
    assert [record["model"] for record in records] == [row.split()[0] for row in rows]
    assert [record["fits"] for record in records] == [" yes " in row for row in rows]


def test_a_name_of_the_catalog_needs_no_network(inhouse: Inhouse) -> None:
    record = planned(inhouse, "deepseek-v3", "--gpus", "8x H200")
    assert record["fits"] is True
    assert record["layout"]["parallel"]["tensor"] == 8
    assert record["kv_bytes_per_token"] == 70272


def test_a_variant(inhouse: Inhouse) -> None:
    full = planned(inhouse, "qwen3-32b", "--gpus", "L40S", "--context", "8k", code=FIT)
    half = planned(inhouse, "qwen3-32b", "--gpus", "L40S", "--context", "8k", "--variant", "fp8")
    auto = planned(inhouse, "qwen3-32b", "--gpus", "L40S", "--context", "8k", "--variant", "auto")
    assert half["weights_bytes_per_gpu"] < 0.6 * full["weights_bytes_per_gpu"]
    assert auto["model"] == half["model"] == "qwen3-32b:fp8"
    ran = inhouse("plan", "qwen3-32b", "--gpus", "L40S", "--variant", "int3")
    assert ran.code == USAGE and "qwen3-32b has no int3; it has: fp8, awq" in ran.err


def test_a_repository_that_no_catalog_has_is_looked_at(
    inhouse: Inhouse, monkeypatch: pytest.MonkeyPatch
) -> None:
    small = LLAMA_8B | {
        "num_hidden_layers": 1, "hidden_size": 64, "num_attention_heads": 4,
        "num_key_value_heads": 2, "intermediate_size": 128, "vocab_size": 64,
        "tie_word_embeddings": True,
    }  # fmt: skip
    files = {"config.json": json.dumps(small).encode(), "model.safetensors": llama_file(small)}
    with FakeHub({"some/model": files}) as hub:
        monkeypatch.setenv("HF_ENDPOINT", hub.endpoint)
        record = planned(inhouse, "some/model", "--gpus", "RTX 4090")
        assert record["model"] == "some/model"
        assert record["weights_basis"] == "headers"
        assert len(hub.requests) <= 8
        files["config.json"] = json.dumps(small | {"intermediate_size": 256}).encode()
        hub.repos["some/model"] = dict(files)
        ran = inhouse("plan", "some/model", "--gpus", "RTX 4090")
    assert ran.code == STORE
    assert "mlp" in ran.err and "intermediate_size" in ran.err


def test_weights_that_are_here_are_planned_exactly(inhouse: Inhouse, tmp_path: Path) -> None:
    folder = tmp_path / "mine"
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(LLAMA_8B))
    ran = inhouse("plan", str(folder), "--gpus", "80GiB", "--json")
    assert json.loads(ran.out)["weights_basis"] == "config"
    (folder / "model.safetensors").write_bytes(safetensors({"w": b"1234"}))
    ran = inhouse("plan", str(folder), "--gpus", "80GiB")
    assert ran.code == STORE, "headers that disagree with the config are no model"


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (("--context", "32kk"), ("--context", "32kk")),
        (("--context", "256k"), ("context", "131")),
        (("--context", "-1"), ("--context",)),
        (("--tensor-parallel-size", "3"), ("--tensor-parallel-size", "3", "32")),
        (("--gpus", "2x RTX 4091"), ("--gpus", "RTX 4090")),
        (("--gpus", "0x RTX 4090"), ("--gpus",)),
        (("--gpus", "-1x RTX 4090"), ("--gpus",)),
        (("--gpus", ""), ("--gpus",)),
        (("--engine-version", "new"), ("--engine-version",)),
        (("--concurrency", "0"), ("--concurrency",)),
    ],
)
def test_impossible_wishes_are_refused_by_their_flag(
    inhouse: Inhouse, config: Path, flags: tuple[str, ...], words: tuple[str, ...]
) -> None:
    cards = () if "--gpus" in flags else ("--gpus", "8x H100")
    ran = inhouse("plan", str(config), *cards, *flags)
    assert (ran.code, ran.out) == (USAGE, ""), ran.err
    for word in words:
        assert word in ran.err


@pytest.mark.parametrize(
    ("text", "word"),
    [
        ("{", "not JSON"),
        ("[]", "not a JSON object"),
        ("[" * 100_000, "not JSON"),
        (json.dumps({**LLAMA_8B, "num_hidden_layers": 0}), "num_hidden_layers"),
        (json.dumps({**LLAMA_8B, "num_key_value_heads": 5}), "num_key_value_heads"),
        (json.dumps({k: v for k, v in LLAMA_8B.items() if k != "vocab_size"}), "vocab_size"),
        (json.dumps({**LLAMA_8B, "hidden_size": "4096"}), "hidden_size"),
    ],
)
def test_a_bad_config_is_refused_by_its_field(
    inhouse: Inhouse, config: Path, text: str, word: str
) -> None:
    config.write_text(text)
    ran = inhouse("plan", str(config), "--gpus", "H100")
    assert (ran.code, ran.out) == (STORE, "")
    assert word in ran.err and str(config) in ran.err


def test_a_config_that_is_not_there(inhouse: Inhouse, tmp_path: Path) -> None:
    ran = inhouse("plan", str(tmp_path / "no" / "config.json"))
    assert ran.code == STORE and "No such file" in ran.err


def test_an_unknown_name_offers_near_ones(inhouse: Inhouse) -> None:
    ran = inhouse("plan", "qwen3-8bb")
    assert ran.code == MODEL and "qwen3-8b" in ran.err


def test_this_machine_is_planned_for_without_gpus(inhouse: Inhouse) -> None:
    record = planned(inhouse, "starter", "--device", "cpu", "--context", "2k")
    assert (record["device"], record["fits"]) == ("cpu", True)
