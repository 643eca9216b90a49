"""Where a model will run: the one entrance to the arithmetic."""

from dataclasses import replace
from functools import cache

from serve.catalog import ModelSpec
from serve.hardware import Machine
from serve.plan.attempt import FindProfile, Question
from serve.plan.capability import usable
from serve.plan.choice import choose
from serve.plan.cures import cures
from serve.plan.extent import as_catalogued, context_within, with_recommended
from serve.plan.launch import plan_of
from serve.plan.plan import Cure, Plan, Subject, Verdict, Wishes
from serve.plan.refusal import no_gpu, refusal
from serve.plan.verdict import verdict_of
from serve.plan.versions import rules
from serve.plan.wishes import check_wishes, need_device
from serve.shape import Geometry

Variants = tuple[tuple[str, Geometry], ...]


def judge(
    geometry: Geometry,
    machine: Machine,
    wishes: Wishes,
    model: str | ModelSpec | Subject = "",
    find: FindProfile | None = None,
    variants: Variants = (),
) -> Verdict:
    """The sum for these weights on this machine, and if it does not fit, the ways out of it.

    `model`: a name for people, a catalog entry, whose lengths and recommendations count, or weights
    that are held, whose launches `find` knows. `variants`: the same model in other number formats,
    by name, to be offered. Never DoesNotFit; raises SettingsError for wishes that contradict the
    model or the machine.
    """
    need_device(machine, wishes)
    question = _question(geometry, machine, wishes, model, find)
    attempt = choose(question)
    found: tuple[Cure, ...] = () if attempt.fits else cures(question, attempt, variants)
    return verdict_of(question, attempt, _name(model), found)


def make_plan(
    subject: Subject,
    geometry: Geometry,
    machine: Machine,
    wishes: Wishes,
    find: FindProfile | None = None,
) -> Plan:
    """Decide device, cards or cores, context and KV cache for these weights on this machine.

    `find`: launches measured before. Raises DoesNotFit with the sum, a remedy and cures, and
    SettingsError for wishes that contradict the model or the machine.
    """
    device = machine.device if wishes.device == "auto" else wishes.device
    if device == "cuda" and not machine.gpus:
        raise no_gpu(subject, geometry, machine.gpu_problem)
    question = _question(geometry, machine, wishes, subject, find)
    attempt = choose(question)
    if not attempt.fits:
        raise refusal(question, attempt, subject.spec.name, cures(question, attempt, ()))
    return plan_of(question, attempt, subject)


def _question(
    geometry: Geometry,
    machine: Machine,
    wishes: Wishes,
    model: str | ModelSpec | Subject,
    find: FindProfile | None,
) -> Question:
    spec = model.spec if isinstance(model, Subject) else model
    if isinstance(spec, ModelSpec):
        wishes = with_recommended(spec, wishes)
        geometry = as_catalogued(spec, geometry, wishes.context_tokens or 0)
    check_wishes(geometry, machine, wishes)
    return Question(
        geometry=geometry,
        machine=_with_usable_cards(geometry, machine, wishes),
        wishes=wishes,
        rules=rules(wishes.engine_version),
        context_tokens=context_within(geometry, wishes),
        digest=model.digest if isinstance(model, Subject) else "",
        find=None if find is None else cache(find),
        may_shrink=not (wishes.is_strict and wishes.context_tokens),
    )


def _with_usable_cards(geometry: Geometry, machine: Machine, wishes: Wishes) -> Machine:
    cards = usable(geometry, machine, wishes)
    return machine if len(cards) == len(machine.gpus) else replace(machine, gpus=cards)


def _name(model: str | ModelSpec | Subject) -> str:
    if isinstance(model, Subject):
        return model.spec.name
    return model if isinstance(model, str) else model.name
