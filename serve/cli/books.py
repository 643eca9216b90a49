"""The ledger for verbs. Beside `serve.cli.rooms` because SQLAlchemy is slow to import."""

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from serve.cli import rooms
from serve.cli.late import late
from serve.errors import NotRunning
from serve.ledger import Books, Deed
from serve.settings import Settings

_client = late("serve.cli.live:client")


@contextmanager
def books(settings: Settings) -> Iterator[Books]:
    """The ledger, open."""
    opened = Books.open(settings.ledger.url, settings.paths.home)
    try:
        yield opened
    finally:
        opened.close()


def changed(
    settings: Settings,
    by_control: Callable[[Any], dict[str, Any]],
    by_hand: Callable[[Books, Deed], dict[str, Any]],
) -> dict[str, Any]:
    """Change something: the supervisor does it, so that gateways hear of it at once (`by_control`
    gets a `control.Client`); we ourselves, if none runs."""
    if rooms.control_socket(settings).exists():
        try:
            return by_control(_client(settings))
        except NotRunning:
            pass
    with books(settings) as opened:
        return by_hand(opened, Deed(actor=f"cli:{os.getuid()}"))
