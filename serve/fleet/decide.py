"""The fleet's decisions, pure: when a dead engine comes back, and which survivors are kept."""

from collections.abc import Sequence
from dataclasses import dataclass

from serve.plan import Plan, Subject, Wishes

# Engines that die for a reason in the machine (a kill by the OOM killer, a lost card) usually die
# again at once; those that die of one bad request do not. Five deaths in ten minutes is the former.
WINDOW_S = 600.0
LIMIT_DEATHS = 5


@dataclass(frozen=True, slots=True)
class Restart:
    """Start it again after `delay_s`."""

    delay_s: float


@dataclass(frozen=True, slots=True)
class Quarantine:
    """Leave it down until somebody asks for it; it died `deaths` times within the window."""

    deaths: int


def after_death(deaths_s: Sequence[float], now_s: float) -> Restart | Quarantine:
    """What follows the last of `deaths_s` (clock readings in seconds, ascending).

    1. Only deaths within the last `WINDOW_S` count.
    2. `LIMIT_DEATHS` of them: quarantine.
    3. The first death: restart at once (a spare is waiting).
    4. Each further one doubles the wait: 1 s, 2 s, 4 s.
    """
    recent = sum(1 for death_s in deaths_s if now_s - death_s <= WINDOW_S)
    if recent >= LIMIT_DEATHS:
        return Quarantine(recent)
    return Restart(0.0 if recent <= 1 else 2.0 ** (recent - 2))


def may_take_over(survivor: Plan, subject: Subject, wishes: Wishes) -> bool:
    """Is an engine that outlived its supervisor what this one would start?

    The same bytes under the same entry of the catalog, on a device and with limits that the
    operator's wishes allow. Free memory may have changed since; the plan made then still holds.
    """
    longest = subject.spec.context_tokens
    wished_and_had = (
        (wishes.kv_cache_bytes, survivor.kv_cache_bytes),
        (wishes.dtype, survivor.dtype),
        (wishes.kv_dtype, survivor.kv_dtype),
        (wishes.tensor_parallel, survivor.tensor_parallel),
        (wishes.pipeline_parallel, survivor.pipeline_parallel),
        (wishes.gpu_memory_utilization, survivor.gpu_memory_utilization),
        (wishes.max_num_batched_tokens, survivor.max_num_batched_tokens),
        (wishes.max_num_seqs, survivor.max_num_seqs),
    )
    return (
        survivor.subject == subject
        and wishes.device in ("auto", survivor.device)
        and survivor.context_tokens == min(wishes.context_tokens or longest, longest)
        and all(wished in (None, had) for wished, had in wished_and_had)
        and (wishes.concurrency or 0) <= survivor.max_concurrency
    )
