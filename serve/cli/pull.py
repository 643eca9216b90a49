"""`inhouse pull`: fetch, verify and seal."""

from dataclasses import asdict
from typing import Annotated

import typer

from serve.cli import output, rooms
from serve.cli.flags import JsonFlag, with_settings
from serve.cli.progress import progress
from serve.settings import Settings
from serve.units import show_bytes

Models = Annotated[
    list[str], typer.Argument(help="Names, aliases or repositories.", metavar="MODEL")
]


@with_settings("paths", "hub", "policy", "engine")
def pull(models: Models, settings: Settings, as_json: JsonFlag = False) -> None:
    """Fetch, verify and seal the weights of models."""
    catalog, store = rooms.catalog(settings), rooms.store(settings)
    specs = [catalog.find(name) for name in models]
    held = [store.pull(spec, progress()) for spec in specs]
    if as_json:
        output.put_json([asdict(weights) for weights in held])
    else:
        rows = [(w.name, show_bytes(w.total_bytes), w.revision[:12], str(w.path)) for w in held]
        output.put_table(("MODEL", "SIZE", "REVISION", "PATH"), rows)
