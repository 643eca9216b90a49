"""vLLM's flags as a value: told apart, merged, and refused where they would break a promise."""

from collections.abc import Iterable, Sequence

from serve.errors import SettingsError

Flags = dict[str, tuple[str, ...]]

# What an operator may not pass through `engine.args`, and why.
_GATEWAY = "the gateway is the only door to an engine"
_PLAN = "the plan decides it"
_CODE = "it runs code of others inside the engine"
_REFUSED = {
    "host": _GATEWAY,
    "port": _GATEWAY,
    "uds": _GATEWAY,
    "api-key": _GATEWAY,
    "root-path": _GATEWAY,
    "ssl-keyfile": _GATEWAY,
    "ssl-certfile": _GATEWAY,
    "ssl-ca-certs": _GATEWAY,
    "allow-credentials": _GATEWAY,
    "allowed-origins": _GATEWAY,
    "grpc": _GATEWAY,
    "grpc-port": _GATEWAY,
    "data-parallel-size": "start more replicas instead",
    "api-server-count": "start more replicas instead",
    "headless": "start more replicas instead",
    "enable-log-requests": "no text of prompts or answers is logged",
    "enable-log-outputs": "no text of prompts or answers is logged",
    "middleware": _CODE,
    "trust-remote-code": _CODE,
    "tool-parser-plugin": _CODE,
    "io-processor-plugin": _CODE,
    "reasoning-parser-plugin": _CODE,
    "allowed-local-media-path": "clients could read files of this machine",
    "config": "write its flags here one by one",
    "model": _PLAN,
    "served-model-name": _PLAN,
    "max-model-len": _PLAN,
    "kv-cache-memory-bytes": _PLAN,
    "gpu-memory-utilization": _PLAN,
    "tensor-parallel-size": _PLAN,
    "pipeline-parallel-size": _PLAN,
    "decode-context-parallel-size": _PLAN,
    "enable-expert-parallel": _PLAN,
    "max-num-batched-tokens": _PLAN,
    "max-num-seqs": _PLAN,
    "kv-cache-dtype": _PLAN,
    "dtype": _PLAN,
    "block-size": _PLAN,
    "num-gpu-blocks-override": _PLAN,
    "hf-token": "engines have no network",
}
_REASONS = tuple(_REFUSED.values())
# A flag of its own, although it is how another one begins.
_ALLOWED = ("reasoning-parser",)
# Refused flag → the setting that says it.
INSTEAD = {
    "max-model-len": "engine.context",
    "kv-cache-memory-bytes": "engine.kv_cache",
    "gpu-memory-utilization": "engine.gpu_memory_utilization",
    "tensor-parallel-size": "engine.tensor_parallel",
    "pipeline-parallel-size": "engine.pipeline_parallel",
    "max-num-batched-tokens": "engine.max_num_batched_tokens",
    "max-num-seqs": "engine.max_num_seqs",
    "kv-cache-dtype": "engine.kv_dtype",
    "dtype": "engine.dtype",
}


def parse(words: Sequence[str]) -> Flags:
    """The operator's words as flags: name without dashes → values; the last of a name counts.

    `--a b`, `--a=b` and the single word `"--a b"` are the same, `_` is `-`. Raises SettingsError
    (key `engine.args`) for what is no long flag and for flags that we do not let through.
    """
    flags = parse_own(tuple(_split(words)))
    for name, values in flags.items():
        _check(name)
        if any("auto_map" in text for text in (name, *values)):
            raise _refusal(f"--{name}", _CODE)  # by overrides of the model's own settings
    return flags


def parse_own(words: Sequence[str]) -> Flags:
    """The same for words that `to_argv` wrote, about which nothing is doubtful."""
    flags: Flags = {}
    name = ""
    for word in words:
        if word.startswith("--") and word != "--":
            written, _, value = word.removeprefix("--").partition("=")
            name = _normal(written)
            _drop(flags, name)
            flags[name] = (value,) if value else ()
        elif word.startswith("-") and not _is_number(word):
            raise _refusal(word, "write the long name of this flag")
        elif not name:
            raise _refusal(word, "is no flag")
        else:
            flags[name] += (word,)
    return flags


def merge(*layers: Flags) -> Flags:
    """Later layers win; `--no-x` and `--x` are the same flag."""
    merged: Flags = {}
    for layer in layers:
        for name, values in layer.items():
            _drop(merged, name)
            merged[name] = values
    return merged


def from_spec(pairs: Iterable[tuple[str, str | int | float | bool]]) -> Flags:
    """A catalog entry's `engine_args`: True is a bare flag, False its `--no-` form.

    SettingsError for flags that run code of others: an entry approves that by `remote_code` only.
    """
    flags: Flags = {}
    for written, value in pairs:
        name = _normal(written)
        _check(name, (_CODE,))
        if isinstance(value, bool):
            flags[name if value else f"no-{name}"] = ()
        else:
            flags[name] = (str(value),)
    return flags


def to_argv(flags: Flags) -> tuple[str, ...]:
    """As vLLM reads them."""
    return tuple(word for name, values in flags.items() for word in (f"--{name}", *values))


def _split(words: Sequence[str]) -> Iterable[str]:
    for word in words:
        head, _, tail = word.partition(" ")
        if head.startswith("--") and "=" not in head and tail:
            yield from (head, tail.strip())
        else:
            yield word


def _normal(name: str) -> str:
    """`max_num_seqs` → `max-num-seqs`; behind a dot stand keys of JSON, which stay."""
    head, dot, tail = name.partition(".")
    return head.replace("_", "-") + dot + tail


def _check(name: str, reasons: Sequence[str] = _REASONS) -> None:
    """argparse takes abbreviations too: `--trust` would be `--trust-remote-code`."""
    plain = name.removeprefix("no-")
    if plain in _ALLOWED:
        return
    for refused, reason in _REFUSED.items():
        if refused.startswith(plain) and reason in reasons:
            raise _refusal(f"--{name}", reason, INSTEAD.get(refused))


def _refusal(word: str, reason: str, instead: str | None = None) -> SettingsError:
    return SettingsError("settings", "engine.args", f"{word}: {reason}", instead)


def _drop(flags: Flags, name: str) -> None:
    plain = name.removeprefix("no-")
    for twin in (plain, f"no-{plain}"):
        flags.pop(twin, None)


def _is_number(word: str) -> bool:
    return word[1:].replace(".", "", 1).isdigit()
