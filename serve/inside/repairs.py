"""Small repairs of vLLM, applied inside the host before it serves, each for named versions.

A repair that no longer finds what it repairs says so and changes nothing.
"""

from collections.abc import Callable
from typing import Any


def apply(version: str) -> list[str]:
    """Apply what this version of vLLM needs; one sentence for each repair that was made."""
    return [sentence for repair in _REPAIRS.get(version, ()) for sentence in repair()]


def load_compiled_programs() -> list[str]:
    """Let vLLM load the compiled program that it saved itself on a CPU.

    Its loader (`compilation/decorators.py`, `_try_load_aot_compiled_fn`) calls `finalize_loading`
    on what it has loaded. In the CPU's trace-once mode that is a plain function without it, so the
    cache is thrown away and the model compiled again at every start: 90 s instead of 20 s.
    """
    import torch

    load = getattr(torch.compiler, "load_compiled_function", None)
    if load is None:
        return ["torch has no load_compiled_function: compiled programs are not loaded"]

    def load_and_complete(*args: Any, **kwargs: Any) -> Any:
        loaded = load(*args, **kwargs)
        compiled = loaded._artifacts.compiled_fn
        if not hasattr(compiled, "finalize_loading"):
            compiled.finalize_loading = lambda config: None
        return loaded

    torch.compiler.load_compiled_function = load_and_complete
    return ["vLLM's compiled programs are loadable on a CPU"]


_REPAIRS: dict[str, tuple[Callable[[], list[str]], ...]] = {"0.32.0": (load_compiled_programs,)}
