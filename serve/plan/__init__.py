"""Does it fit, where, with which limits, and if not: what would help. No I/O, no clock, no log.

In: a geometry, a machine, wishes. Out: a `Plan` to start, or a `Verdict` to read.
"""

from serve.plan.plan import Plan, Subject, Verdict, Wishes
from serve.plan.planner import judge, make_plan

__all__ = ["Plan", "Subject", "Verdict", "Wishes", "judge", "make_plan"]
