"""Every decision of a plan as a flag under vLLM's own name, and what they make together: Wishes."""

import inspect
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import wraps
from typing import Annotated, Any

import typer

from serve.errors import SettingsError
from serve.plan import Wishes
from serve.settings import Settings
from serve.units import parse_bytes, parse_tokens

_WISH = "What you want"
_FIXED = "Decisions fixed by hand, as vLLM calls them"
_GIB = 2**30


def _count(text: str) -> int:
    if not text.isascii() or not text.isdecimal() or int(text) < 1:
        raise ValueError(f"must be a whole number from 1: {text!r}")
    return int(text)


def _share(text: str) -> float:
    try:
        share = float(text)
    except ValueError:
        share = 0.0
    if not 0 < share <= 1:
        raise ValueError(f"must be a share above 0, at most 1: {text!r}")
    return share


def _gib(text: str) -> int:
    try:
        return int(float(text) * _GIB)  # below 0 too: engines log so when nothing is left
    except (ValueError, OverflowError):
        raise ValueError(f"must be a number of GiB: {text!r}") from None


def _one_of(*words: str) -> Callable[[str], str]:
    def read(text: str) -> str:
        if text not in words:
            raise ValueError(f"must be one of {', '.join(words)}: {text!r}")
        return text

    return read


_DTYPES = ("auto", "bfloat16", "float16", "half", "float32", "float")
_KV_DTYPES = ("auto", "bfloat16", "float16", "fp8", "fp8_e4m3", "fp8_e5m2", "fp8_ds_mla")


@dataclass(frozen=True, slots=True)
class _Flag:
    """`read` None: a flag without a value. `field`: of `Wishes`."""

    name: str
    field: str
    panel: str
    metavar: str
    help: str
    read: Callable[[str], Any] | None


# fmt: off
_FLAGS = (
    _Flag("--context", "context_tokens", _WISH, "TOKENS",
          "Tokens of prompt and answer of one request, as 32k; a longer one than the model's is "
          "refused (default: as long as fits).", parse_tokens),
    _Flag("--concurrency", "concurrency", _WISH, "N",
          "Requests of that length that must fit at once (default 1).", _count),
    _Flag("--device", "device", _WISH, "auto|cpu|cuda",
          "What to run on.", _one_of("auto", "cpu", "cuda")),
    _Flag("--dtype", "dtype", _WISH, "|".join(_DTYPES[:4]),
          "Number format of what is not quantised.", _one_of(*_DTYPES)),
    _Flag("--quantization", "quantization", _FIXED, "METHOD",
          "How weights are packed (awq, gptq, fp8, mxfp4, …), if not as config.json says.", str),
    _Flag("--kv-cache-dtype", "kv_dtype", _FIXED, "auto|fp8",
          "Number format of the KV cache.", _one_of(*_KV_DTYPES)),
    _Flag("--gpu-memory-utilization", "gpu_memory_utilization", _FIXED, "SHARE",
          "The share of each card's memory that the engine may take.", _share),
    _Flag("--max-model-len", "context_tokens", _FIXED, "TOKENS", "The same as --context.",
          parse_tokens),
    _Flag("--tensor-parallel-size", "tensor_parallel", _FIXED, "N", "Cards that share each layer.",
          _count),
    _Flag("--pipeline-parallel-size", "pipeline_parallel", _FIXED, "N",
          "Stages of layers, one after another.", _count),
    _Flag("--data-parallel-size", "data_parallel", _FIXED, "N", "Copies that share their experts.",
          _count),
    _Flag("--decode-context-parallel-size", "decode_context_parallel", _FIXED, "N",
          "Tensor ranks that share the tokens of the KV cache.", _count),
    _Flag("--enable-expert-parallel", "is_expert_parallel", _FIXED, "",
          "Whole experts on each card instead of slices of all.", None),
    _Flag("--max-num-batched-tokens", "max_num_batched_tokens", _FIXED, "N",
          "Tokens of one engine step.", _count),
    _Flag("--max-num-seqs", "max_num_seqs", _FIXED, "N", "Requests of one engine step.", _count),
    _Flag("--block-size", "block_tokens", _FIXED, "TOKENS", "Tokens of a block of the KV cache.",
          _count),
    _Flag("--enforce-eager", "is_eager", _FIXED, "", "No CUDA graphs.", None),
    _Flag("--kv-cache-memory-bytes", "kv_cache_bytes", _FIXED, "SIZE",
          "The KV cache of each device, told to the engine.", parse_bytes),
    _Flag("--engine-version", "engine_version", _FIXED, "VERSION",
          "By the rules of this version of vLLM (default: the one that is shipped).", str),
    _Flag("--available-kv-gib", "available_kv_bytes", _FIXED, "GIB",
          "What an engine logged as available for its KV cache; replaces our sum.", _gib),
)
# fmt: on


def with_wishes(verb: Callable[..., None]) -> Callable[..., None]:
    """Give a verb all flags of the table, and what they say as its parameter `wishes`."""

    @wraps(verb)
    def run(**given: Any) -> None:
        wishes = read_wishes({flag.name: given.pop(_parameter(flag)) for flag in _FLAGS})
        verb(**given, wishes=wishes)

    own = [p for p in inspect.signature(verb).parameters.values() if p.name != "wishes"]
    run.__signature__ = inspect.Signature(  # type: ignore[attr-defined]
        [*own, *map(_as_parameter, _FLAGS)]
    )
    return run


def read_wishes(given: dict[str, str | bool | None]) -> Wishes:
    """Flags by name, None or False where not given. SettingsError that names the flag."""
    wishes = Wishes(is_strict=True)
    said: dict[str, str] = {}
    for flag in _FLAGS:
        value = given.get(flag.name)
        if value is None or value is False:
            continue
        if flag.field in said:
            raise SettingsError("flag", flag.name, f"says the same as {said[flag.field]}")
        said[flag.field] = flag.name
        wishes = replace(wishes, **{flag.field: _read(flag, value)})
    return wishes


def settled(settings: Settings) -> Wishes:
    """What the settings say of how models are run."""
    engine = settings.engine
    return Wishes(
        device=engine.device,
        context_tokens=engine.context,
        kv_cache_bytes=engine.kv_cache,
        concurrency=engine.concurrency,
        dtype=engine.dtype,
        kv_dtype=engine.kv_dtype,
        tensor_parallel=engine.tensor_parallel,
        pipeline_parallel=engine.pipeline_parallel,
        gpu_memory_utilization=engine.gpu_memory_utilization,
        max_num_batched_tokens=engine.max_num_batched_tokens,
        max_num_seqs=engine.max_num_seqs,
    )


def over(wishes: Wishes, settings: Wishes) -> Wishes:
    """What was typed, and below it what the settings say."""
    untouched = Wishes(is_strict=wishes.is_strict)
    fields = {name: getattr(wishes, name) for name in Wishes.__dataclass_fields__}
    typed = {name: value for name, value in fields.items() if value != getattr(untouched, name)}
    return replace(settings, is_strict="context_tokens" in typed, **typed)


def as_typed(error: SettingsError) -> SettingsError:
    """A plan's complaint about a decision, by the flag that says it."""
    names = {flag.name.removeprefix("--") for flag in _FLAGS} | {"gpus", "variant"}
    if error.place != "plan" or error.key not in names:
        return error
    return SettingsError("flag", f"--{error.key}", error.problem, error.suggestion)


def _read(flag: _Flag, value: str | bool) -> Any:
    if flag.read is None or not isinstance(value, str):
        return value
    try:
        return flag.read(value)
    except ValueError as error:
        raise SettingsError("flag", flag.name, str(error)) from error


def _parameter(flag: _Flag) -> str:
    return flag.name.removeprefix("--").replace("-", "_")


def _as_parameter(flag: _Flag) -> inspect.Parameter:
    kind: Any = str | None if flag.read is not None else bool
    option = typer.Option(
        flag.name, help=flag.help, metavar=flag.metavar or " ", rich_help_panel=flag.panel
    )
    default = None if flag.read is not None else False
    return inspect.Parameter(
        _parameter(flag), inspect.Parameter.KEYWORD_ONLY, default=default,
        annotation=Annotated[kind, option],
    )  # fmt: skip
