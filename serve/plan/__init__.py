"""Pure arithmetic: does it fit, where, and with which limits. No I/O, no clock, no logging."""

from serve.plan.plan import Plan, Subject, Wishes
from serve.plan.planner import make_plan

__all__ = ["Plan", "Subject", "Wishes", "make_plan"]
