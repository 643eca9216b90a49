"""What a body may ask for, so that one client cannot hurt an engine that all share."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Bounds:
    """The settings `request.*`; see there."""

    max_depth: int = 64
    max_n: int = 16
    max_logprobs: int = 20
    max_stops: int = 16
    max_grammar: int = 64 * 2**10  # bytes
    media_hosts: tuple[str, ...] = ()


def check(body: bytes, bounds: Bounds) -> None:
    """BadRequest (with `param`) if the body asks for more than `bounds` allow. Never quotes it."""
