"""One finding of the doctor."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Check:
    """`found`: what is there; `cure`: what to do, None where nothing is to be done. `is_needed`:
    engines do not run, or not as they should, without it; else it would only be better."""

    name: str
    is_ok: bool
    found: str
    cure: str | None
    is_needed: bool = True
