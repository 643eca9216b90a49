"""The command of an engine: every flag and variable that we promise."""

from dataclasses import replace
from pathlib import Path

import pytest

from serve.catalog import Extension, ModelSpec
from serve.catalog.spec import License
from serve.engine.command import Command, Launch, build_command, host_env
from serve.engine.flags import INSTEAD, from_spec, merge, parse, to_argv
from serve.engine.preload import find_allocator, find_openmp
from serve.engine.runtime import Runtime
from serve.errors import SettingsError
from serve.plan import Plan, Subject
from serve.settings import table
from serve.sources import DirSource

SPEC = ModelSpec(
    name="tiny",
    family="qwen2",
    source=DirSource(Path("/weights/tiny")),
    license=License("MIT", "yes"),
    architecture="Qwen2ForCausalLM",
    context_tokens=4096,
    parameters="1M",
)
PLAN = Plan(
    subject=Subject(SPEC, Path("/weights/tiny"), "d1", 1_000_000),
    device="cpu",
    gpus=(),
    cores=(0, 1),
    tensor_parallel=1,
    context_tokens=4096,
    kv_cache_bytes=2**30,
    kv_tokens=45_000,
    gpu_memory_utilization=0.0,
    parts=(),
)
ON_GPUS = replace(PLAN, device="cuda", gpus=(1, 3), cores=(), tensor_parallel=2)
ON_GPUS = replace(ON_GPUS, gpu_memory_utilization=0.92, is_kv_fixed=False)
CPU = Runtime("vllm-0.32.0-cpu", Path("/rt/bin/python"), "cpu", "0.32.0", 1)
CUDA = replace(CPU, name="vllm-0.32.0-cuda", device="cuda")
LAUNCH = Launch(Path("/run/e/engine.sock"), Path("/run/e"), Path("/cache"))


def command(plan: Plan = PLAN, launch: Launch = LAUNCH) -> Command:
    return build_command(plan, CUDA if plan.device == "cuda" else CPU, launch)


def value(built: Command, flag: str) -> str:
    return built.argv[built.argv.index(flag) + 1]


def with_spec(**changes: object) -> Plan:
    spec = replace(SPEC, **changes)  # type: ignore[arg-type]
    return replace(PLAN, subject=replace(PLAN.subject, spec=spec))


def test_a_cpu_engine_gets_all_its_flags() -> None:
    built = command()
    assert value(built, "--model") == "/weights/tiny"
    assert value(built, "--served-model-name") == "tiny"
    assert value(built, "--uds") == "/run/e/engine.sock"
    assert value(built, "--max-model-len") == "4096"
    assert value(built, "--kv-cache-memory-bytes") == str(2**30)
    for flag in ("--enforce-eager", "--enable-prompt-tokens-details", "--disable-fastapi-docs"):
        assert flag in built.argv
    assert built.mode == "eager"


def test_a_cpu_engine_uses_all_cores_and_no_network() -> None:
    env = command().env
    assert env["VLLM_CPU_OMP_THREADS_BIND"] == "0,1"
    assert env["OMP_NUM_THREADS"] == "2"
    assert "VLLM_CPU_KVCACHE_SPACE" not in env
    assert command().host_env["MALLOC_MMAP_MAX_"] == "0"
    split = command(replace(PLAN, cores=(0, 1, 2, 3), tensor_parallel=2))
    assert split.env["VLLM_CPU_OMP_THREADS_BIND"] == "0,1|2,3"
    assert value(split, "--tensor-parallel-size") == "2"


def test_a_gpu_engine_measures_its_kv_cache_itself() -> None:
    built = command(ON_GPUS)
    assert value(built, "--gpu-memory-utilization") == "0.9200"
    assert value(built, "--tensor-parallel-size") == "2"
    assert built.env["CUDA_VISIBLE_DEVICES"] == "1,3"
    assert "--kv-cache-memory-bytes" not in built.argv
    assert "--enforce-eager" not in built.argv
    assert built.mode == "compiled"
    assert "LD_PRELOAD" not in built.host_env
    assert not any(name.startswith("MALLOC_") for name in built.host_env)


def test_a_gpu_engine_is_told_a_fixed_kv_cache_and_its_cards_by_their_names() -> None:
    built = command(replace(ON_GPUS, is_kv_fixed=True, gpu_uuids=("GPU-a", "GPU-b")))
    assert value(built, "--kv-cache-memory-bytes") == str(2**30)
    assert built.env["CUDA_VISIBLE_DEVICES"] == "GPU-a,GPU-b"


def test_parsers_bring_the_flag_that_they_need() -> None:
    built = command(with_spec(tool_call_parser="hermes", reasoning_parser="qwen3"))
    assert value(built, "--tool-call-parser") == "hermes"
    assert value(built, "--reasoning-parser") == "qwen3"
    assert "--enable-auto-tool-choice" in built.argv
    assert "--enable-auto-tool-choice" not in command().argv


def test_a_rehearsal_compiles_with_room_for_one_request() -> None:
    built = command(launch=replace(LAUNCH, mode="compiled", is_rehearsal=True))
    assert "--enforce-eager" not in built.argv
    assert 2**30 * 4096 // 45_000 < int(value(built, "--kv-cache-memory-bytes")) < 2**30 // 8
    assert built.mode == "compiled"


def test_the_operator_wins_over_the_spec_and_the_spec_over_us() -> None:
    plan = with_spec(
        engine_args=(("stream-interval", 64), ("seed", 7), ("generation-config", "vllm"))
    )
    extra = ("--stream_interval=8", "--generation-config auto")
    built = command(plan, replace(LAUNCH, extra_args=extra))
    assert value(built, "--stream-interval") == "8"
    assert value(built, "--generation-config") == "auto"
    assert value(built, "--seed") == "7"
    assert built.argv.count("--stream-interval") == built.argv.count("--seed") == 1


def test_what_the_plan_decided_is_told_to_the_engine() -> None:
    decided = replace(
        ON_GPUS, pipeline_parallel=3, is_expert_parallel=True, max_num_batched_tokens=4096,
        max_num_seqs=32, kv_dtype="fp8", dtype="float16",
    )  # fmt: skip
    built = command(decided)
    for flag, said in (
        ("--tensor-parallel-size", "2"), ("--pipeline-parallel-size", "3"),
        ("--max-num-batched-tokens", "4096"), ("--max-num-seqs", "32"),
        ("--kv-cache-dtype", "fp8"), ("--dtype", "float16"),
    ):  # fmt: skip
        assert value(built, flag) == said and built.argv.count(flag) == 1
    assert "--enable-expert-parallel" in built.argv
    usual = set(command(ON_GPUS).argv)
    assert not usual & {"--pipeline-parallel-size", "--max-num-batched-tokens", "--dtype"}
    assert not usual & {"--max-num-seqs", "--kv-cache-dtype", "--enable-expert-parallel"}


def _spec_words(plan: Plan) -> list[str]:
    """What the engine is told more than without the entry's flags."""
    usual = command(with_spec()).argv
    return [word for word in command(plan).argv if word not in usual]


def test_a_plan_has_weighed_the_entrys_limits_so_they_are_not_told_beside_it() -> None:
    plan = with_spec(engine_args=(("max-num-seqs", 64), ("kv_cache_dtype", "fp8"), ("seed", 7)))
    assert not any("max-num-seqs" in word or "cache" in word for word in _spec_words(plan))
    built = command(replace(plan, max_num_seqs=8, kv_dtype="fp8_e5m2"))
    assert value(built, "--max-num-seqs") == "8"
    assert value(built, "--kv-cache-dtype") == "fp8_e5m2"
    assert value(built, "--seed") == "7"


YARN = Extension(32768, "YaRN", (("hf-overrides", '{"factor": 4}'),))


def test_a_context_longer_than_the_models_switches_its_extension_on() -> None:
    plan = with_spec(extension=YARN)
    assert "--hf-overrides" not in command(plan).argv
    longer = replace(plan, context_tokens=4097)
    assert value(command(longer), "--hf-overrides") == '{"factor": 4}'
    own = replace(LAUNCH, extra_args=("--hf-overrides={}",))
    assert value(command(longer, own), "--hf-overrides") == "{}"


def test_the_operator_can_ask_for_eager_and_take_flags_back() -> None:
    extra = ("--enforce-eager", "--no-enable-prompt-tokens-details")
    built = command(launch=replace(LAUNCH, mode="compiled", extra_args=extra))
    assert built.mode == "eager"
    assert "--enable-prompt-tokens-details" not in built.argv
    back = command(launch=replace(LAUNCH, extra_args=("--no-enforce-eager",)))
    assert back.mode == "compiled"


@pytest.mark.parametrize(
    ("words", "flags"),
    [
        ((), {}),
        (("--seed", "1"), {"seed": ("1",)}),
        (("--reasoning-parser", "qwen3"), {"reasoning-parser": ("qwen3",)}),
        (("--seed=1", "--seed", "2"), {"seed": ("2",)}),
        (("--num_lookahead", "--swap"), {"num-lookahead": (), "swap": ()}),
        (("--seed 1",), {"seed": ("1",)}),
        (("--seed", "-1", "--list", "x", "y"), {"seed": ("-1",), "list": ("x", "y")}),
        (('--kv-events-config={"a": 1}',), {"kv-events-config": ('{"a": 1}',)}),
        (("--compilation-config.some_key", "3"), {"compilation-config.some_key": ("3",)}),
    ],
)
def test_words_are_parsed_as_vllm_reads_them(
    words: tuple[str, ...], flags: dict[str, tuple[str, ...]]
) -> None:
    assert parse(words) == flags
    assert parse(to_argv(flags)) == flags


@pytest.mark.parametrize(
    "word",
    ["--host=0.0.0.0", "--port", "--uds", "--api_key", "--trust-remote-code", "--trust", "--middle"]
    + ["--enable-log-requests", "--max-model-len", "--no-enable-log-outputs", "-tp", "stray"]
    + ["--allow-credentials", "--tensor-parallel-size", "--config", "--model", "--"]
    + ["--pipeline-parallel-size", "--max_num_seqs", "--max-num-batched-tokens", "--dtype"]
    + ["--kv-cache-dtype", "--no-enable-expert-parallel", "--data-parallel-size", "--block-size"]
    + ["--num-gpu-blocks-override", "--decode-context-parallel-size", "--max-num-s"],
)
def test_flags_that_break_a_promise_are_refused(word: str) -> None:
    with pytest.raises(SettingsError) as caught:
        parse((word, "x"))
    assert caught.value.key == "engine.args"
    assert word.split("=")[0].replace("_", "-") in caught.value.problem


@pytest.mark.parametrize(
    "words",
    [('--hf-overrides={"auto_map": {"AutoModel": "/x--y.Z"}}',),
     ("--hf-overrides", '{"text_config": {"auto_map": {}}}'),
     ("--hf-overrides.auto_map.AutoModel", "x.Y")],
)  # fmt: skip
def test_no_code_comes_in_by_overrides(words: tuple[str, ...]) -> None:
    with pytest.raises(SettingsError) as caught:
        parse(words)
    assert "code of others" in caught.value.problem


@pytest.mark.parametrize(
    "name", ["trust-remote-code", "trust_remote_code", "tool-parser-plugin", "middleware"]
)
def test_an_entry_runs_no_code_by_its_engine_args(name: str) -> None:
    with pytest.raises(SettingsError) as caught:
        command(with_spec(engine_args=((name, True),)))
    assert "code of others" in caught.value.problem


@pytest.mark.parametrize("remote_code", [None, "unneeded", "main", "A" * 40, "0" * 39])
def test_code_that_nobody_approved_is_not_trusted(remote_code: str | None) -> None:
    assert "--trust-remote-code" not in command(with_spec(remote_code=remote_code)).argv


def test_code_of_an_approved_commit_is_trusted_and_shut_in_as_any() -> None:
    trusted, plain = command(with_spec(remote_code="0a" * 20)), command()
    assert set(trusted.argv) - set(plain.argv) == {"--trust-remote-code"}
    assert (trusted.env, trusted.host_env) == (plain.env, plain.host_env)


@pytest.mark.parametrize("flag", INSTEAD)
def test_a_refusal_names_the_setting_to_use_instead(flag: str) -> None:
    with pytest.raises(SettingsError) as caught:
        parse((f"--{flag}", "9"))
    assert caught.value.suggestion == INSTEAD[flag]
    assert INSTEAD[flag] in [setting.key for setting in table()]


def test_the_layers_of_flags_know_negations() -> None:
    assert merge({"a": (), "b": ("1",)}, {"no-a": ()}) == {"b": ("1",), "no-a": ()}
    assert from_spec((("a_a", True), ("b", False), ("c", 0.5))) == {
        "a-a": (),
        "no-b": (),
        "c": ("0.5",),
    }


def test_the_environment_is_closed_and_says_offline() -> None:
    inherited = {"PATH": "/bin", "HF_TOKEN": "secret", "INHOUSE_API_KEY": "k", "NVIDIA_X": "1"}
    inherited |= {"LD_PRELOAD": "/evil.so", "VLLM_PORT": "1", "TMPDIR": "/of/all"}
    env = host_env(CPU, Path("/s"), Path("/cache"), inherited)
    assert "secret" not in str(env) and "INHOUSE_API_KEY" not in env and "VLLM_PORT" not in env
    assert "/evil.so" not in env.get("LD_PRELOAD", "")
    assert env["PATH"] == "/rt/bin:/bin"
    assert env["NVIDIA_X"] == "1"
    for name in ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE", "VLLM_NO_USAGE_STATS", "DO_NOT_TRACK"):
        assert env[name] == "1"
    assert env["VLLM_PLUGINS"] == ""
    assert env["PYTHONHASHSEED"] == "0"
    assert env["VLLM_HOST_IP"] == "127.0.0.1"
    assert env["VLLM_CACHE_ROOT"].startswith("/cache/vllm-0.32.0-cpu/")


def test_a_command_brings_the_environment_of_its_host() -> None:
    assert command().host_env == host_env(CPU, LAUNCH.scratch_dir, Path("/cache"), {})


def test_temporary_files_and_inner_sockets_lie_in_the_engines_own_folder() -> None:
    built = command(launch=replace(LAUNCH, inherited={"TMPDIR": "/of/all"}))
    assert built.env["VLLM_RPC_BASE_PATH"] == built.host_env["TMPDIR"] == "/run/e"
    caches = [name for name in built.host_env if "CACHE" in name]
    assert "TORCHINDUCTOR_CACHE_DIR" in caches
    for name in caches:
        assert built.host_env[name].startswith("/cache/"), name


def test_libraries_are_preloaded_where_they_are(tmp_path: Path) -> None:
    runtime = replace(CPU, python=tmp_path / "bin" / "python")
    assert find_openmp(runtime) is None
    assert find_allocator((str(tmp_path),)) is None
    gnu = tmp_path / "lib" / "python3.11" / "site-packages" / "torch.libs" / "libgomp-1.so.1"
    gnu.parent.mkdir(parents=True)
    gnu.touch()
    assert host_env(runtime, Path("/s"), tmp_path, {})["LD_PRELOAD"].endswith(str(gnu))
    (tmp_path / "lib" / "libiomp5.so").touch()
    (tmp_path / "libtcmalloc_minimal.so.4").touch()
    assert find_openmp(runtime) == tmp_path / "lib" / "libiomp5.so"
    assert find_allocator((str(tmp_path),)) == tmp_path / "libtcmalloc_minimal.so.4"
    env = host_env(runtime, Path("/s"), tmp_path, {})
    assert env["LD_PRELOAD"].endswith(str(tmp_path / "lib" / "libiomp5.so"))
    assert "libgomp" not in env["LD_PRELOAD"]
