"""Each row planned three ways, and the promises that the whole table has to keep."""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from serve.plan.estimate import Ask, evaluate
from serve.plan.plan import Estimate
from serve.profiles import Profile, ProfileKey
from tests.plan.accuracy.truth import GIB, Launch, Row, launch_of

# Rows that differ from a plan for a reason that no plan can know; shown, not counted.
NOT_TOKENS = {
    "9": "an EAGLE draft model adds a layer to the KV cache",
    "19": "the printed memory is one rank's, the tokens are those of the rank with least",
}
NOT_CARD = {
    "13": "the stages were cut by hand, 16 and 32 layers, over cards of 16 and 32 GB",
    "17": "not an NVIDIA card",
}
# Of those, the rows whose engine held more than the model that is planned.
HAS_MORE = {"9"}
# Two starts of one engine at different utilizations: each is planned with what the other measured.
TWINS = {"25": "26", "26": "25"}


@dataclass(frozen=True, slots=True)
class Pair:
    """What was predicted and what was logged."""

    predicted: float
    logged: float

    @property
    def error(self) -> float:
        return self.predicted / self.logged - 1


@dataclass(frozen=True, slots=True)
class Outcome:
    """One row. `tokens`: with the logged KV memory given; `available`: GiB of KV memory from the
    card and the utilization; `calibrated`: the same with measured terms, `basis` says which;
    `is_refused`: of a start that failed. None: not stated, or not planned (`reasons`)."""

    row: Row
    launch: Launch | None
    tokens: Pair | None = None
    available: Pair | None = None
    calibrated: Pair | None = None
    basis: str = ""
    is_refused: bool | None = None
    weights: Pair | None = None
    reasons: tuple[str, ...] = ()
    is_counted_for_tokens: bool = True


def outcomes_of(folder: Path, rows: tuple[Row, ...]) -> tuple[Outcome, ...]:
    """These rows, planned with the configs in a folder of model facts."""
    by_id = {row["id"]: row for row in rows}
    return tuple(_outcome(folder, row, by_id) for row in rows)


def _outcome(folder: Path, row: Row, by_id: dict[str, Row]) -> Outcome:
    launch = launch_of(folder, row)
    if launch is None:
        return Outcome(row, None, reasons=("no config.json of this model is known",))
    if row["confidence"] == "low":
        return Outcome(row, launch, reasons=("second-hand figures",))
    estimate = evaluate(launch.geometry, launch.cards, launch.layout)
    calibrated, basis = _calibrated(launch, by_id)
    logged_weights = row.number("weights_gib_per_gpu")
    weights = estimate.terms[0].n_bytes / GIB
    return Outcome(
        row,
        launch,
        tokens=_tokens(launch),
        available=_available(launch, estimate),
        calibrated=calibrated,
        basis=basis,
        is_refused=_is_refused(launch) if row.is_refusal else None,
        weights=None if logged_weights is None else Pair(weights, logged_weights),
        reasons=tuple(_reasons(launch)),
        is_counted_for_tokens=row["id"] not in NOT_TOKENS,
    )


def _given(launch: Launch) -> Estimate | None:
    """With the KV memory that the log states; a refusal of V0 states it in tokens."""
    row = launch.row
    given = row.n_bytes("available_kv_gib")
    tokens, per_token = row["gpu_kv_tokens"], row["formula_kv_bytes_per_token_per_gpu"]
    if given is None and row.is_refusal and tokens and per_token:
        given = int(tokens) * int(per_token)
    if given is None:
        return None
    return evaluate(launch.geometry, launch.cards, launch.layout, Ask(available_kv_bytes=given))


def _tokens(launch: Launch) -> Pair | None:
    estimate = _given(launch)
    if estimate is None or not launch.row["available_kv_gib"]:
        return None
    if launch.row["gpu_kv_tokens"]:
        return Pair(estimate.kv_tokens, int(launch.row["gpu_kv_tokens"]))
    if launch.row["reported_est_max_len"]:
        return Pair(estimate.longest_context_tokens, int(launch.row["reported_est_max_len"]))
    return None


def _available(launch: Launch, estimate: Estimate) -> Pair | None:
    logged = launch.row.number("available_kv_gib")
    if logged is None or launch.row["id"] in NOT_CARD or not launch.is_card_known:
        return None
    return Pair(estimate.available_kv_bytes / GIB, logged)


def _is_refused(launch: Launch) -> bool | None:
    estimate = _given(launch)
    return None if estimate is None else not estimate.fits


def _calibrated(launch: Launch, by_id: dict[str, Row]) -> tuple[Pair | None, str]:
    row, logged = launch.row, launch.row.number("available_kv_gib")
    if logged is None or not (launch.is_card_known and launch.is_utilization_known):
        return None, ""
    if row["id"] in NOT_CARD:
        return None, ""
    if row["id"] in TWINS:
        measured, basis = by_id[TWINS[row["id"]]], f"row {TWINS[row['id']]}'s start"
        profile = _profile(launch, measured, with_available=True)
    elif row["activation_gib"] and row["non_torch_gib"]:
        profile, basis = _profile(launch, row, with_available=False), "its own terms"
    else:
        profile, basis = _profile(launch, row, with_available=True), "its own start"
    estimate = evaluate(launch.geometry, launch.cards, launch.layout, Ask(profile=profile))
    return Pair(estimate.available_kv_bytes / GIB, logged), basis


def _profile(launch: Launch, row: Row, with_available: bool) -> Profile:
    utilization = row.number("gpu_memory_utilization") or 0.0
    budget = round(launch.cards[0].total_bytes * utilization)
    return Profile(
        key=_key(launch),
        measured_at=0.0,
        model=row["model"],
        weights_bytes=row.n_bytes("weights_gib_per_gpu"),
        activation_bytes=row.n_bytes("activation_gib"),
        graph_bytes=None,
        other_bytes=row.n_bytes("non_torch_gib"),
        budget_bytes=budget if with_available else None,
        available_kv_bytes=row.n_bytes("available_kv_gib") if with_available else None,
        kv_blocks=None,
        block_tokens=None,
        kv_tokens=None,
    )


def _key(launch: Launch) -> ProfileKey:
    layout = launch.layout
    return ProfileKey(
        weights="",
        device=launch.cards[0].name,
        engine_version=layout.version,
        tensor_parallel=layout.parallel.tensor,
        pipeline_parallel=layout.parallel.pipeline,
        data_parallel=layout.parallel.data,
        max_num_batched_tokens=layout.max_num_batched_tokens,
        max_num_seqs=layout.max_num_seqs,
        kv_dtype=layout.kv_dtype,
        is_eager=layout.is_eager,
    )


def _reasons(launch: Launch) -> Iterable[str]:
    row = launch.row
    if row["id"] in NOT_TOKENS:
        yield NOT_TOKENS[row["id"]]
    if row["id"] in NOT_CARD:
        yield NOT_CARD[row["id"]]
    elif not launch.is_card_known:
        yield "the card is not stated"
    elif not launch.is_utilization_known:
        yield "the utilization is not stated (the default is assumed)"
    if not row["available_kv_gib"]:
        yield "the KV memory is not stated"


@dataclass(frozen=True, slots=True)
class Promise:
    """A share of rows that has to be within a limit."""

    text: str
    within: float
    share: float
    errors: tuple[float, ...]

    @property
    def kept(self) -> int:
        return sum(abs(error) <= self.within for error in self.errors)

    @property
    def is_kept(self) -> bool:
        return bool(self.errors) and self.kept >= self.share * len(self.errors)


def promises(outcomes: tuple[Outcome, ...]) -> tuple[Promise, ...]:
    """What the plans have to keep over the whole table."""
    tokens = [o.tokens.error for o in outcomes if o.tokens and o.is_counted_for_tokens]
    stated = [o for o in outcomes if o.launch is not None and o.launch.is_utilization_known]
    before = [o.available.error for o in stated if o.available]
    after = [o.calibrated.error for o in stated if o.calibrated]
    refused = [0.0 if o.is_refused else 1.0 for o in outcomes if o.is_refused is not None]
    return (
        Promise("tokens, KV memory given", 0.01, 0.95, tuple(tokens)),
        Promise("KV memory, from card and utilization", 0.10, 0.80, tuple(before)),
        Promise("KV memory, after calibration", 0.05, 1.0, tuple(after)),
        Promise("starts that failed are refused", 0.0, 1.0, tuple(refused)),
    )
