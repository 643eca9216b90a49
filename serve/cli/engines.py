"""`inhouse engine`: the vLLM versions that are installed here."""

from dataclasses import asdict
from typing import Annotated

import typer

from serve.cli import live, output
from serve.cli.flags import JsonFlag, with_settings
from serve.engine import Runtimes
from serve.settings import Settings
from serve.units import show_bytes

_HEAD = ("RUNTIME", "DEVICE", "VLLM", "SIZE", "PYTHON")


@with_settings("paths", "engine")
def install(settings: Settings, as_json: JsonFlag = False) -> None:
    """Install the runtime for this machine; at once when it is there."""
    runtime = live.runtimes(settings).install(live.device(settings), output.say)
    if as_json:
        output.put_json(asdict(runtime))
    else:
        output.say(f"{runtime.name} is installed")


@with_settings("paths", "engine")
def ls(settings: Settings, as_json: JsonFlag = False) -> None:
    """List the runtimes that are installed."""
    held = live.runtimes(settings).list()
    if as_json:
        output.put_json([asdict(runtime) for runtime in held])
    elif held:
        rows = [
            (r.name, r.device, r.vllm_version, show_bytes(r.total_bytes), str(r.python))
            for r in held
        ]
        output.put_table(_HEAD, rows)
    else:
        output.say("no runtime here yet: inhouse engine install")


@with_settings("paths", "engine")
def rm(
    names: Annotated[list[str], typer.Argument(help="As engine ls names them.", metavar="RUNTIME")],
    settings: Settings,
    as_json: JsonFlag = False,
) -> None:
    """Remove runtimes from the disk."""
    runtimes: Runtimes = live.runtimes(settings)
    freed = {name: runtimes.remove(name) for name in names}
    if as_json:
        output.put_json([{"name": name, "freed_bytes": size} for name, size in freed.items()])
    else:
        output.put_table(("RUNTIME", "FREED"), [(n, show_bytes(s)) for n, s in freed.items()])
