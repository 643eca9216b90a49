"""`inhouse serve auto`: the best recommended model that runs well on this machine."""

from dataclasses import dataclass, replace

from serve.catalog import ModelSpec
from serve.cli import machine, output, rooms
from serve.cli.planned import Finder
from serve.cli.planning import settled
from serve.errors import DoesNotFit, NotAllowed, SettingsError
from serve.hardware import Machine
from serve.plan import Verdict, Wishes, judge
from serve.settings import Settings
from serve.sources import show_source
from serve.units import show_tokens

NAME = "auto"
# What makes a model worth having on a machine: room for long conversations.
_CONTEXT_TOKENS = 8 * 1024
_REQUESTS = 2
# Slower than people read is no conversation.
_TOKENS_S = 5.0


@dataclass(frozen=True, slots=True)
class _Choice:
    spec: ModelSpec
    verdict: Verdict


def chosen(
    settings: Settings, names: tuple[str, ...], here: Machine | None = None
) -> tuple[str, ...]:
    """The names, with `auto` replaced by the model that it means on this machine, or on that one.

    DoesNotFit if there is none.
    """
    if NAME not in names:
        return names
    choice = _best(settings, here or this_machine(settings))
    estimate = choice.verdict.estimate
    context = show_tokens(estimate.layout.context_tokens)
    output.say(
        f"auto: {choice.spec.name} on {', '.join(choice.verdict.devices)},"
        f" {estimate.max_concurrency:.0f} requests of {context} tokens at once"
    )
    return tuple(dict.fromkeys(choice.spec.name if name == NAME else name for name in names))


def this_machine(settings: Settings) -> Machine:
    """As measured now, its memory's speed too: a processor is judged by it."""
    return machine.read(settings, is_measured=True)


def _best(settings: Settings, here: Machine) -> _Choice:
    finder = Finder(settings, settled(settings))
    least, slow = 0, None
    for spec in finder.recommended():
        planned = finder.known(spec) if _is_allowed(settings, spec) else None
        if planned is None or (here.device == "cpu" and planned.geometry.quant is not None):
            continue  # a processor gains nothing from 4 or 8 bits that it must unpack
        try:
            verdict = judge(planned.geometry, here, _wishes(settings, spec), spec)
        except SettingsError as error:
            if error.place != "plan":
                raise
            continue  # it cannot be cut as the settings want it, another one may
        if _is_quick(verdict):
            return _Choice(spec, verdict)
        if verdict.estimate.fits:
            slow = _Choice(spec, verdict)
        least = verdict.estimate.missing_bytes
    if slow is not None:  # the smallest is better than none
        return slow
    raise DoesNotFit("auto", here.device, least, 0, (), "name a model, or see inhouse ls --catalog")


def _wishes(settings: Settings, spec: ModelSpec) -> Wishes:
    wished = settled(settings)
    context = min(spec.context_tokens, wished.context_tokens or _CONTEXT_TOKENS)
    return replace(wished, context_tokens=context, concurrency=wished.concurrency or _REQUESTS)


def _is_allowed(settings: Settings, spec: ModelSpec) -> bool:
    try:
        rooms.policy(settings).check(spec, spec.source.kind, show_source(spec.source))
    except NotAllowed:
        return False
    return True


def _is_quick(verdict: Verdict) -> bool:
    speed = verdict.speed
    return verdict.estimate.fits and (speed is None or speed.decode_tokens_s >= _TOKENS_S)
