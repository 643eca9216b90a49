"""Percentiles, medians and spread of a handful of figures."""

import math
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Summary:
    """`low` and `high` are the extremes: with few rounds they say more than a deviation."""

    count: int
    median: float
    p99: float
    low: float
    high: float


def percentile(values: Sequence[float], share: float) -> float:
    """The value below which `share` (0 to 1) of `values` lie, linear between neighbours.

    As numpy.percentile's default (Hyndman and Fan 1996, type 7). ValueError without values.
    """
    if not values:
        raise ValueError("no values")
    ordered = sorted(values)
    place = share * (len(ordered) - 1)
    below = math.floor(place)
    above = min(below + 1, len(ordered) - 1)
    return ordered[below] + (ordered[above] - ordered[below]) * (place - below)


def summary(values: Sequence[float]) -> Summary:
    """What a row of the report says about `values`. ValueError without values."""
    return Summary(
        count=len(values),
        median=percentile(values, 0.5),
        p99=percentile(values, 0.99),
        low=min(values),
        high=max(values),
    )
