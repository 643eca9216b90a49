"""Timed requests against any OpenAI-style server, and what the times say.

In go a target and a workload, out comes a record that JSON can hold. The room is a stranger to
all others: it measures servers that are ours and servers that are not by the same means.
"""

from serve.bench.client import Target, request
from serve.bench.report import LoadReport, comparison
from serve.bench.run import closed_loop
from serve.bench.workload import prompts

__all__ = ["LoadReport", "Target", "closed_loop", "comparison", "prompts", "request"]
