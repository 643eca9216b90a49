"""A verdict as people read it: the sum with bars, what it gives, and the ways out; and as JSON."""

import shlex
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from serve.cli import output
from serve.plan import Verdict
from serve.units import show_bytes, show_tokens

# With the other columns a terminal of 80 holds it.
_BAR_CELLS = 22
_FULL, _PARTS = "█", " ▏▎▍▌▋▊▉"
_BASES = {
    "headers": "every tensor's size is read from the files",
    "sampled": "sizes are computed from config.json and compared with some of the files",
    "config": "sizes are computed from config.json",
}


@dataclass(frozen=True, slots=True)
class Row:
    """One line of the sum, in bytes per device."""

    name: str
    n_bytes: int
    certainty: str


def record(verdict: Verdict) -> dict[str, Any]:
    """For programs. Sizes are bytes of one device; the fullest one decides."""
    estimate, terms = verdict.estimate, {term.name: term for term in verdict.estimate.terms}

    def size(name: str) -> int:
        return terms[name].n_bytes if name in terms else 0

    return {
        "model": verdict.model,
        "fits": estimate.fits,
        "device": verdict.device,
        "devices": list(verdict.devices),
        "kv_tokens": estimate.kv_tokens,
        "max_concurrency": round(estimate.max_concurrency, 4),
        "kv_bytes_per_token": estimate.kv_bytes_per_token,
        "weights_bytes_per_gpu": size("weights"),
        "activation_bytes": size("activations"),
        "graph_bytes": size("CUDA graphs"),
        "other_bytes": size("other"),
        "outside_bytes": estimate.outside_bytes,
        "budget_bytes": estimate.budget_bytes,
        "total_bytes": estimate.total_bytes,
        "free_bytes": estimate.free_bytes,
        "available_kv_bytes": estimate.available_kv_bytes,
        "needed_kv_bytes": estimate.needed_kv_bytes,
        "missing_bytes": estimate.missing_bytes,
        "longest_context_tokens": estimate.longest_context_tokens,
        "block_tokens": estimate.block_tokens,
        "kv_blocks": estimate.kv_blocks,
        "cures": [asdict(cure) for cure in verdict.cures],
        "layout": asdict(estimate.layout),
        "terms": [asdict(term) for term in estimate.terms],
        "speed": asdict(verdict.speed) if verdict.speed else None,
        "copies": verdict.copies,
        "basis": verdict.basis,
        "weights_basis": verdict.weights_basis,
        "notes": list(verdict.notes),
    }


def put(verdict: Verdict) -> None:
    """For people."""
    output.put(_title(verdict))
    output.put("")
    rows = list(sum_rows(verdict))
    head = ("PER DEVICE", "SIZE", "CERTAINTY", "")
    total = max(verdict.estimate.total_bytes, sum(max(row.n_bytes, 0) for row in rows))
    output.put_table(
        head,
        [
            (row.name, show_bytes(row.n_bytes), row.certainty, bar(row.n_bytes, total))
            for row in rows
        ],
    )
    output.put("")
    output.put_facts(list(facts(verdict)))
    if verdict.cures:
        output.put("")
        output.put("what would make it fit, the cheapest first:")
        for number, cure in enumerate(verdict.cures, 1):
            output.put(f"  {number}. {cure.change}: {cure.price}")
            if cure.flags:
                output.put(f"     {shlex.join(cure.flags)}")


def sum_rows(verdict: Verdict) -> Iterator[Row]:
    """What fills a device, to its last byte."""
    estimate = verdict.estimate
    for term in estimate.terms:
        yield Row(term.name, term.n_bytes, _certainty(term.basis, term.low_bytes, term.high_bytes))
    left = max(estimate.available_kv_bytes, 0)
    if estimate.fits:
        yield Row("KV cache", left, f"{estimate.kv_tokens:,} tokens")
    else:
        asked = f"needs {show_bytes(estimate.needed_kv_bytes)}"
        yield Row("left for KV cache", estimate.available_kv_bytes, asked)
    used = sum(term.n_bytes for term in estimate.terms) + left
    outside = min(estimate.outside_bytes, max(estimate.total_bytes - used, 0))
    if outside:
        yield Row("driver and NCCL", outside, "beside the budget")
    others = max(estimate.total_bytes - estimate.free_bytes, 0)
    if others:
        yield Row("of other programs", others, "as measured")
    free = estimate.total_bytes - used - outside - others
    if free > 0:
        yield Row("free", free, "")


def facts(verdict: Verdict) -> Iterator[tuple[str, str]]:
    """What it gives, and what was decided."""
    estimate = verdict.estimate
    layout = estimate.layout
    context = show_tokens(layout.context_tokens)
    if estimate.fits:
        yield "requests", f"{estimate.max_concurrency:.2f} of {context} tokens at once"
    else:
        yield "missing", f"{show_bytes(estimate.missing_bytes)} per device"
        longest = estimate.longest_context_tokens
        yield "longest context", f"{longest:,} tokens" if longest else "none: not even the weights"
    per_token = f"{estimate.kv_bytes_per_token:,} bytes per token and device"
    yield "KV cache", f"{per_token}, blocks of {estimate.block_tokens} tokens"
    yield (
        "each step",
        f"{layout.max_num_batched_tokens:,} tokens of {layout.max_num_seqs:,} requests at most",
    )
    if speed := verdict.speed:
        one, many = f"{speed.decode_tokens_s:,.0f}", f"{speed.decode_tokens_s_all:,.0f}"
        together = f"; {many} for {speed.streams} together" if speed.streams > 1 else ""
        yield "decode, at most", f"{one} tokens/s for one{together}, behind {context} of context"
        yield "prefill, at most", f"{speed.prefill_tokens_s:,.0f} tokens/s"
    if verdict.copies > 1:
        yield "copies", f"this machine holds {verdict.copies} of it"
    yield "weights", _BASES.get(verdict.weights_basis, verdict.weights_basis)
    for note in verdict.notes:
        yield "note", note


def put_comparison(verdicts: Sequence[Verdict]) -> None:
    """One line each, for people who choose a model or a card."""
    head = ("MODEL", "ON", "FITS", "CONTEXT", "REQUESTS", "TOKENS/S", "ALL", "PREFILL")
    output.put_table(head, [_compared(verdict) for verdict in verdicts])
    output.say("TOKENS/S, ALL and PREFILL are what physics allows at most", "dim")


def place(verdict: Verdict) -> str:
    """`4 x NVIDIA H100 (TP 4)`."""
    names = list(dict.fromkeys(verdict.devices))
    counts = [f"{n} x {name}" if (n := verdict.devices.count(name)) > 1 else name for name in names]
    parallel = verdict.estimate.layout.parallel
    parts = [
        f"{label} {count}"
        for label, count in (
            ("TP", parallel.tensor), ("PP", parallel.pipeline), ("DP", parallel.data),
        )
        if count > 1
    ]  # fmt: skip
    return " + ".join(counts) + (f" ({', '.join(parts)})" if parts else "")


def bar(n_bytes: int, total: int) -> str:
    """A share of a device as a bar of eighths."""
    eighths = round(max(n_bytes, 0) / max(total, 1) * _BAR_CELLS * 8)
    return _FULL * (eighths // 8) + _PARTS[eighths % 8].strip()


def _title(verdict: Verdict) -> str:
    word = "fits" if verdict.estimate.fits else "does not fit"
    return f"{verdict.model} {word} on {place(verdict)}"


def _certainty(basis: str, low: int, high: int) -> str:
    if basis != "estimated" or low == high:
        return basis
    return f"{show_bytes(low)} to {show_bytes(high)}"


def _compared(verdict: Verdict) -> tuple[str, ...]:
    estimate, speed = verdict.estimate, verdict.speed
    missing = f"-{show_bytes(estimate.missing_bytes)}"
    rates = ("", "", "")
    if speed and estimate.fits:
        rates = (
            f"{speed.decode_tokens_s:,.0f}",
            f"{speed.decode_tokens_s_all:,.0f}",
            f"{speed.prefill_tokens_s:,.0f}",
        )
    return (
        verdict.model,
        place(verdict),
        "yes" if estimate.fits else missing,
        show_tokens(estimate.layout.context_tokens),
        f"{estimate.max_concurrency:.1f}" if estimate.fits else "",
        *rates,
    )
