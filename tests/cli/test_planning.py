"""What is typed behind `inhouse plan`, as wishes."""

import pytest

from serve.cli.planning import as_typed, over, read_wishes
from serve.errors import SettingsError
from serve.plan import Wishes


@pytest.mark.parametrize(
    ("flag", "text", "field", "value"),
    [
        ("--context", "32k", "context_tokens", 32768),
        ("--max-model-len", "16000", "context_tokens", 16000),
        ("--context", "1M", "context_tokens", 2**20),
        ("--concurrency", "16", "concurrency", 16),
        ("--gpu-memory-utilization", "0.9", "gpu_memory_utilization", 0.9),
        ("--available-kv-gib", "32.0", "available_kv_bytes", 32 * 2**30),
        ("--available-kv-gib", "-1.5", "available_kv_bytes", -3 * 2**29),
        ("--kv-cache-memory-bytes", "4GiB", "kv_cache_bytes", 4 * 2**30),
        ("--kv-cache-dtype", "fp8", "kv_dtype", "fp8"),
        ("--tensor-parallel-size", "4", "tensor_parallel", 4),
        ("--engine-version", "0.30", "engine_version", "0.30"),
        ("--block-size", "16", "block_tokens", 16),
        ("--quantization", "awq", "quantization", "awq"),
    ],
)
def test_a_flag_is_a_wish(flag: str, text: str, field: str, value: object) -> None:
    wishes = read_wishes({flag: text})
    assert getattr(wishes, field) == value
    untouched = {name for name in Wishes.__dataclass_fields__ if name not in (field, "is_strict")}
    assert all(getattr(wishes, name) == getattr(Wishes(), name) for name in untouched)


@pytest.mark.parametrize(
    ("flag", "text"),
    [
        ("--context", "32kk"),
        ("--context", "-5"),
        ("--context", "0"),
        ("--context", "1.0001k"),
        ("--context", "lots"),
        ("--context", ""),
        ("--max-model-len", "16e3"),
        ("--concurrency", "0"),
        ("--concurrency", "1.5"),
        ("--concurrency", "٣"),
        ("--gpu-memory-utilization", "90"),
        ("--gpu-memory-utilization", "0"),
        ("--gpu-memory-utilization", "nan"),
        ("--available-kv-gib", "much"),
        ("--available-kv-gib", "inf"),
        ("--available-kv-gib", "nan"),
        ("--kv-cache-dtype", "int3"),
        ("--dtype", "bf16"),
        ("--device", "tpu"),
        ("--tensor-parallel-size", "two"),
    ],
)
def test_nonsense_is_refused_by_its_flag(flag: str, text: str) -> None:
    with pytest.raises(SettingsError) as caught:
        read_wishes({flag: text})
    assert (caught.value.place, caught.value.key) == ("flag", flag)
    assert repr(text) in caught.value.problem


def test_one_thing_said_twice_is_refused() -> None:
    with pytest.raises(SettingsError, match="says the same as --context"):
        read_wishes({"--context": "32k", "--max-model-len": "32768"})


def test_switches() -> None:
    wishes = read_wishes({"--enforce-eager": True, "--enable-expert-parallel": True})
    assert (wishes.is_eager, wishes.is_expert_parallel) == (True, True)
    wishes = read_wishes({"--enforce-eager": False, "--enable-expert-parallel": False})
    assert (wishes.is_eager, wishes.is_expert_parallel) == (False, None)


def test_what_is_typed_goes_over_what_is_set() -> None:
    settings = Wishes("cuda", 4096, 2**30)
    typed = over(read_wishes({"--context": "8k"}), settings)
    assert (typed.device, typed.context_tokens, typed.kv_cache_bytes) == ("cuda", 8192, 2**30)
    assert typed.is_strict, "who types a context means it"
    assert not over(read_wishes({}), settings).is_strict, "a setting is a limit for every model"


def test_a_complaint_of_the_plan_names_the_flag() -> None:
    told = as_typed(SettingsError("plan", "tensor-parallel-size", "3 does not divide 8 heads", "2"))
    assert (told.place, told.key) == ("flag", "--tensor-parallel-size")
    other = SettingsError("inhouse.yaml", "engine.context", "is no number")
    assert as_typed(other) is other
