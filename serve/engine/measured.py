"""What an engine measured while it started: its log and its metrics become a profile.

The wordings are those of vLLM 0.26 to 0.33 (v1/worker/gpu_worker.py, cpu_worker.py, model runners,
v1/core/kv_cache_utils.py, v1/metrics/loggers.py). Sizes stand there in GiB with two decimals, so
they are known to 5 MiB; numbers of blocks and tokens are exact. Several ranks say the same thing:
the worst of them counts, as it does for the engine.
"""

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import httpx

from serve.plan import Plan
from serve.profiles import Profile, ProfileKey

_GIB = 2**30
# A start writes some hundred KB; more is not read.
_LOG_BYTES = 8 * 2**20
_ANSWER_TIMEOUT_S = 5.0

_SIZE = r"(-?\d{1,9}(?:\.\d{1,9})?)"
_COUNT = r"(\d[\d,]{0,23})"


@dataclass(frozen=True, slots=True)
class Measured:
    """Bytes on the fullest device; None: the engine did not say. Fields as in `Profile`."""

    weights_bytes: int | None = None
    activation_bytes: int | None = None
    graph_bytes: int | None = None
    other_bytes: int | None = None
    budget_bytes: int | None = None
    available_kv_bytes: int | None = None
    kv_blocks: int | None = None
    block_tokens: int | None = None
    kv_tokens: int | None = None
    max_concurrency: float | None = None


# What is written → the pattern with its figures.
_LINES = {
    "loaded": rf"Model loading took {_SIZE} GiB",
    "available": rf"Available KV cache memory: {_SIZE} GiB",
    # The first is said by one rank only, the second by each; the engine takes the least.
    "in use": rf"Current kv cache memory in use is {_SIZE} GiB",
    # The engine gives up: what was there stands in its complaint.
    "refused": rf"larger than the available KV cache memory \({_SIZE} GiB\)",
    "tokens": rf"\b[A-Z]+(?: \+ host)? KV cache size: {_COUNT} tokens",
    "concurrency": rf"Maximum concurrency for {_COUNT} tokens per request: {_SIZE}x",
    "budget": rf"Desired GPU memory utilization is \({_SIZE}, {_SIZE} GiB\)",
    # To 0.26, then from 0.27: weights and what torch does not see in one figure, and the estimate
    # of the graphs inside the peak of the activations.
    "apart": rf"Actual usage is {_SIZE} GiB for weight, {_SIZE} GiB for peak activation,"
    rf" {_SIZE} GiB for non-torch memory",
    "together": rf"Actual usage is {_SIZE} GiB for consumed memory \(weights \+ non-torch\),"
    rf" {_SIZE} GiB for peak activation",
    "captured": rf"Graph capturing finished in \d+ secs, took {_SIZE} GiB",
    "foreseen": rf"Estimated CUDA graph memory: {_SIZE} GiB total",
    "pool": rf"CUDA graph pool memory: {_SIZE} GiB \(actual\), {_SIZE} GiB \(estimated\)",
    "cpu": rf"Auto set \({_SIZE}/{_SIZE}\) GiB for KV cache on node \d+, with {_SIZE} GiB requested"
    rf" memory for the worker\. {_SIZE} GiB memory was consumed",
}
_PATTERNS = {name: re.compile(pattern) for name, pattern in _LINES.items()}
_METRIC = re.compile(r"^vllm:cache_config_info\{(.*)\} ", re.MULTILINE)
_NUMBER = re.compile(r"[0-9]{1,15}")
_LABEL = re.compile(r'(\w+)="((?:\\.|[^"\\])*)"')


def read_log(text: str) -> Measured:
    """What the log of one start says. Nothing of it has to be there."""
    lines = _Lines(text)
    weights, consumed = lines.gib("loaded", max), lines.gib("together", max)
    graphs = _first(lines.gib("pool", max, 1), lines.gib("foreseen", max))
    return Measured(
        weights_bytes=_first(weights, lines.gib("apart", max)),
        activation_bytes=_first(
            lines.gib("apart", max, 1), _less(lines.gib("together", max, 1), graphs or 0)
        ),
        graph_bytes=_less(_first(graphs, lines.gib("captured", max)), 0),
        other_bytes=_first(
            lines.gib("apart", max, 2),
            None if weights is None else _less(consumed, weights),
            lines.gib("cpu", max, 3),
        ),
        budget_bytes=_first(lines.gib("budget", min, 1), lines.gib("cpu", min, 2)),
        available_kv_bytes=_first(
            _least_of(lines.gib("available", min), lines.gib("in use", min)),
            lines.gib("refused", min),
            lines.gib("cpu", min),
        ),
        kv_tokens=lines.count("tokens"),
        max_concurrency=lines.number("concurrency", min, 1),
    )


def read_metrics(text: str) -> Measured:
    """What `vllm:cache_config_info` says: the pool of KV blocks as it was made."""
    engines = [dict(_LABEL.findall(labels)) for labels in _METRIC.findall(text)]
    return Measured(
        kv_blocks=_least(engines, "num_gpu_blocks"),
        block_tokens=_least(engines, "block_size"),
        kv_tokens=_least(engines, "kv_cache_size_tokens"),
    )


async def measure(socket: Path, log_path: Path) -> Measured:
    """Of a ready engine: its log, completed by its metrics, as far as it gives them."""
    told = measured_in(log_path)
    transport = httpx.AsyncHTTPTransport(uds=str(socket), verify=False)
    try:
        async with httpx.AsyncClient(
            transport=transport,
            base_url="http://engine",
            timeout=_ANSWER_TIMEOUT_S,
            trust_env=False,
        ) as client:
            asked = read_metrics((await client.get("/metrics")).text)
    except httpx.HTTPError:
        return told  # it is busy or gone, and the log has the most of it
    return _completed(told, asked)


def measured_in(log_path: Path) -> Measured:
    """Of an engine that did not become ready: what its log says until then."""
    try:
        with log_path.open("rb") as file:
            return read_log(file.read(_LOG_BYTES).decode(errors="replace"))
    except OSError:
        return Measured()


def to_profile(
    measured: Measured, key: ProfileKey, plan: Plan, at: float, ready_after_s: float | None
) -> Profile:
    """The profile of a launch that began at `at` (Unix seconds) and was ready so much later, or
    failed (None)."""
    outcome: Literal["ready", "failed"] = "failed" if ready_after_s is None else "ready"
    return Profile(
        key=key,
        measured_at=at,
        model=plan.subject.spec.name,
        weights_bytes=measured.weights_bytes,
        activation_bytes=measured.activation_bytes,
        graph_bytes=measured.graph_bytes,
        other_bytes=measured.other_bytes,
        budget_bytes=measured.budget_bytes,
        # An engine that is told how large its cache is does not measure what it could have been.
        available_kv_bytes=None if plan.is_kv_fixed else measured.available_kv_bytes,
        kv_blocks=measured.kv_blocks,
        block_tokens=measured.block_tokens,
        kv_tokens=measured.kv_tokens,
        ready_after_s=ready_after_s,
        outcome=outcome,
    )


class _Lines:
    """The figures of every known line in a log."""

    def __init__(self, text: str) -> None:
        self._found = {name: _figures(pattern, text) for name, pattern in _PATTERNS.items()}

    def number(
        self, name: str, worst: Callable[[Iterable[float]], float], place: int = 0
    ) -> float | None:
        """Of all ranks that wrote this line, the worst figure at `place`."""
        found = self._found[name]
        return worst(figures[place] for figures in found) if found else None

    def gib(
        self, name: str, worst: Callable[[Iterable[float]], float], place: int = 0
    ) -> int | None:
        """The same, from GiB to bytes."""
        size = self.number(name, worst, place)
        return None if size is None else round(size * _GIB)

    def count(self, name: str) -> int | None:
        """The least of a count."""
        count = self.number(name, min)
        return None if count is None else int(count)


def _figures(pattern: re.Pattern[str], text: str) -> list[tuple[float, ...]]:
    return [
        tuple(float(figure.replace(",", "")) for figure in match.groups())
        for match in pattern.finditer(text)
    ]


def _first(*values: int | None) -> int | None:
    return next((value for value in values if value is not None), None)


def _least_of(*values: int | None) -> int | None:
    return min((value for value in values if value is not None), default=None)


def _less(whole: int | None, part: int) -> int | None:
    # Two figures that were rounded apart may differ by less than nothing.
    return None if whole is None else max(0, whole - part)


def _least(engines: list[dict[str, str]], label: str) -> int | None:
    texts = [engine.get(label, "") for engine in engines]
    return min((int(text) for text in texts if _NUMBER.fullmatch(text)), default=None)


def _completed(told: Measured, asked: Measured) -> Measured:
    return replace(
        told,
        kv_blocks=asked.kv_blocks,
        block_tokens=asked.block_tokens,
        kv_tokens=_first(asked.kv_tokens, told.kv_tokens),
    )
