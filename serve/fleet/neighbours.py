"""Who else is on the cards, told with what fails for lack of memory. They are left alone."""

from dataclasses import replace

from serve.errors import DoesNotFit, StartFailed

# Kinds of failed starts (`engine/triage_machine.py`) that fewer neighbours would have spared.
_FOR_LACK_OF_MEMORY = ("gpu_busy", "no_kv", "context", "context_v0", "after_kv", "profile")
_MOST_NAMED = 8


def naming_strangers(
    error: DoesNotFit | StartFailed, strangers: tuple[str, ...]
) -> DoesNotFit | StartFailed:
    """The error with the names of `strangers` (one sentence each) in its remedy, where it is about
    memory of a card; else the error as it is."""
    if isinstance(error, StartFailed):
        is_meant = bool(error.finding) and error.finding[0] in _FOR_LACK_OF_MEMORY
    else:
        is_meant = error.device == "cuda"
    if not is_meant or not strangers:
        return error
    named = [*strangers[:_MOST_NAMED]]
    if len(strangers) > _MOST_NAMED:
        named.append(f"and {len(strangers) - _MOST_NAMED} more")
    said = f"others are on the cards: {'; '.join(named)}"
    return replace(error, remedy=f"{error.remedy}; {said}" if error.remedy else said)
