"""One row of the table of causes: what is found in a log, and what is said about it."""

import re
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Cause:
    """`pattern` finds it in a log; its groups fill `sentence` and `remedy` (`{0}` is the first).

    `also`: a second pattern that must be anywhere in the log, where the words alone do not tell at
    which step it happened. `kind`: what somebody who can change the plan acts on; the groups are
    its figures.
    """

    pattern: re.Pattern[str]
    sentence: str
    remedy: str | None = None
    also: re.Pattern[str] | None = None
    kind: str | None = None


def row(
    pattern: str,
    sentence: str,
    remedy: str | None = None,
    also: str | None = None,
    kind: str | None = None,
) -> Cause:
    """A `Cause` of patterns as text."""
    return Cause(re.compile(pattern), sentence, remedy, re.compile(also) if also else None, kind)
