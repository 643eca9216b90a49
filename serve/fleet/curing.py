"""Starts that fail for a value which the operator left to us: with another one, at most thrice."""

import logging
from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from math import floor
from typing import Any

from serve.engine import Engine
from serve.errors import DoesNotFit, SettingsError, StartFailed
from serve.log import fields
from serve.plan import Plan, Wishes
from serve.profiles import Lessons, lesson_key
from serve.units import show_tokens

Start = Callable[[Plan], Awaitable[Engine]]
Replan = Callable[[Wishes], Awaitable[Plan]]

_MOST_STEPS = 3
# An engine with less is of little use; the failure is better told.
_LEAST_CONTEXT_TOKENS = 2048
_LEAST_SEQUENCES = 8
_LEAST_BATCH_TOKENS = 512
_LEAST_UTILIZATION = 0.1
# Free memory moves a little between two starts; graphs and late buffers take 2 to 4 % of a card.
_SLACK = 0.01
_SHARE_FOR_GRAPHS = 0.05
# vLLM's own defaults for the smallest cards (engine/arg_utils.py), where the plan names none.
_USUAL_SEQUENCES, _USUAL_BATCH_TOKENS = 256, 2048

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Step:
    """One change: `field` of the wishes, its new value, and what is said of it."""

    field: str
    value: int | float
    sentence: str


def cure(finding: tuple[str, ...], plan: Plan, wishes: Wishes) -> Step | None:
    """What to change after a start of `plan` that failed for `finding` (`StartFailed.finding`).

    None where the kind of failure has no such cure, where the operator has chosen the value
    (`wishes`), or where too little would be left.
    """
    step = _STEPS[finding[0]](finding[1:], plan) if finding and finding[0] in _STEPS else None
    return step if step is not None and getattr(wishes, step.field) is None else None


class Curing:
    """Starts engines for wishes. What helped is kept in `lessons`, under what it helped with."""

    def __init__(self, wishes: Wishes, lessons: Lessons) -> None:
        self._wishes = wishes
        self._lessons = lessons

    def plan(self, make: Callable[[Wishes], Plan]) -> Plan:
        """What `make` makes of the operator's wishes, or of what earlier starts of this plan have
        taught. Raises what `make` raises for the operator's wishes."""
        plan = make(self._wishes)
        values = self._lessons.find(self._key(plan))
        if not values:
            return plan
        try:
            taught = make(_with(self._wishes, values))
        except (DoesNotFit, SettingsError):  # the machine is another one today
            return plan
        _log.info("as earlier starts have taught %s", fields(**values))
        said = ", ".join(f"{name}={value}" for name, value in values.items())
        return replace(taught, note=_joined(taught.note, f"as earlier starts have taught: {said}"))

    async def start(self, begin: Start, plan: Plan, replan: Replan) -> Engine:
        """`begin(plan)`; where that fails for a value that is ours to choose, again with a plan for
        another one. Each change is told in the log and in the note of the engine's plan.

        Raises StartFailed of the last start, which says what was tried; and what `begin` raises.
        """
        key, steps = self._key(plan), list[Step]()
        taught = self._lessons.find(key)
        while True:
            try:
                engine = await begin(_noted(plan, steps))
            except StartFailed as error:
                step = cure(error.finding, plan, self._wishes)
                if step is None or len(steps) == _MOST_STEPS:
                    raise _tried(error, steps) from error
                _tell(error, step)
                values = {**taught, **_values([*steps, step])}
                try:
                    plan = await replan(_with(self._wishes, values))
                except (DoesNotFit, SettingsError) as refusal:
                    raise _tried(error, steps) from refusal
                steps.append(step)
            else:
                if steps:
                    self._lessons.keep(key, {**taught, **_values(steps)})
                return engine

    def _key(self, plan: Plan) -> str:
        return lesson_key(plan.subject.digest, plan.device_name, repr(self._wishes))


def _values(steps: Iterable[Step]) -> dict[str, int | float]:
    return {step.field: step.value for step in steps}


def _with(wishes: Wishes, values: Mapping[str, int | float]) -> Wishes:
    known = {name for name in Wishes.__dataclass_fields__ if getattr(wishes, name) is None}
    changes: dict[str, Any] = {name: value for name, value in values.items() if name in known}
    return replace(wishes, **changes)


def _noted(plan: Plan, steps: Iterable[Step]) -> Plan:
    return replace(plan, note=_joined(plan.note, *(step.sentence for step in steps)))


def _joined(*notes: str | None) -> str | None:
    return "; ".join(note for note in notes if note) or None


def _tried(error: StartFailed, steps: list[Step]) -> StartFailed:
    if not steps:
        return error
    tried = f"tried already: {'; '.join(step.sentence for step in steps)}"
    return replace(error, remedy=f"{error.remedy}; {tried}" if error.remedy else tried)


def _tell(error: StartFailed, step: Step) -> None:
    facts = fields(model=error.model, cause=error.cause, now=step.sentence)
    _log.warning("the start failed, once more with another value %s", facts)


def _shorter(tokens: str, plan: Plan) -> Step | None:
    context = int(tokens)
    if not _LEAST_CONTEXT_TOKENS <= context < plan.context_tokens:
        return None
    return Step(
        "context_tokens",
        context,
        f"context of {show_tokens(context)} tokens instead of {show_tokens(plan.context_tokens)}",
    )


def _what_is_free(free: str, total: str, plan: Plan) -> Step | None:
    return _utilization(float(free) / float(total) - _SLACK, plan)


def _utilization(share: float, plan: Plan) -> Step | None:
    share = floor(share * 100 + 1e-6) / 100
    if not _LEAST_UTILIZATION <= share < plan.gpu_memory_utilization:
        return None
    was = plan.gpu_memory_utilization
    return Step(
        "gpu_memory_utilization", share, f"{share:.0%} of the GPU's memory instead of {was:.0%}"
    )


def _fewer(sequences: int, plan: Plan) -> Step | None:
    half = sequences // 2
    if plan.device == "cpu" or half < _LEAST_SEQUENCES:
        return None
    return Step("max_num_seqs", half, f"{half} sequences at once instead of {sequences}")


def _smaller_batches(plan: Plan) -> Step | None:
    tokens = plan.max_num_batched_tokens or _USUAL_BATCH_TOKENS
    half = tokens // 2
    if plan.device == "cpu" or half < _LEAST_BATCH_TOKENS:
        return None
    return Step("max_num_batched_tokens", half, f"batches of {half} tokens instead of {tokens}")


# Kind of failure (`engine/triage_machine.py`) → the change, from its figures and the plan.
_STEPS: dict[str, Callable[[tuple[str, ...], Plan], Step | None]] = {
    "context": lambda figures, plan: _shorter(figures[3], plan),
    "context_v0": lambda figures, plan: _shorter(figures[1], plan),
    "gpu_busy": lambda figures, plan: _what_is_free(figures[0], figures[1], plan),
    "after_kv": lambda _, plan: _utilization(plan.gpu_memory_utilization - _SHARE_FOR_GRAPHS, plan),
    "sampler": lambda figures, plan: _fewer(int(figures[0]), plan),
    "no_kv": lambda _, plan: _fewer(plan.max_num_seqs or _USUAL_SEQUENCES, plan),
    "profile": lambda _, plan: _smaller_batches(plan),
}
