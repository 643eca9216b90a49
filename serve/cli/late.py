"""What is imported when it is called: a listing must not wait for HTTP clients and engines.

A place is written "module:name", as in "serve.cli.held:ls"; `tests/house` reads it as the import
that it is.
"""

import gc
from collections.abc import Callable
from importlib import import_module
from typing import Any


def read(place: str) -> Any:
    """What is there, imported now."""
    module, name = place.split(":")
    gc.disable()  # what an import makes is no garbage; looking for some takes a tenth of the time
    try:
        return getattr(import_module(module), name)
    finally:
        if not gc.get_freeze_count():
            gc.freeze()  # nor does it become any
        gc.enable()


def late(place: str) -> Callable[..., Any]:
    """A function that stands for the one there, and imports it at its call."""

    def call(*given: Any, **named: Any) -> Any:
        return read(place)(*given, **named)

    return call
