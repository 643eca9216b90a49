"""`serve --detach`: the same command in a session of its own, which reports once and goes on."""

import asyncio
import json
import os
import sys
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter

from serve.cli import output, rooms
from serve.cli.running import SUPERVISOR_LOG
from serve.control import Status
from serve.engine import Child
from serve.errors import ControlLost, InhouseError, NotWritable
from serve.settings import Settings
from serve.wire import from_wire, to_wire

_STATUS = TypeAdapter(Status)


def detach(settings: Settings, names: tuple[str, ...]) -> Status:
    """Start a supervisor that outlives us; returns when it is ready, raises what it raised."""
    folder = rooms.log_dir(settings)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise NotWritable(str(folder), error.strerror or str(error)) from error
    log_path = folder / SUPERVISOR_LOG
    output.say(f"starting {', '.join(names)} in the background: {log_path}")
    record = json.loads(asyncio.run(_report(log_path)) or "null")
    if record is None:
        raise ControlLost(f"it ended without a word; read {log_path}")
    if "error" in record:
        raise from_wire(record)
    return _STATUS.validate_python(record)


def report_ready(descriptor: int, status: Status) -> None:
    """In the child: tell the one that waits, who then leaves."""
    _report_to(descriptor, asdict(status))


def report_error(descriptor: int, error: InhouseError) -> None:
    """In the child: tell the one that waits what is wrong."""
    _report_to(descriptor, to_wire(error))


async def _report(log_path: Path) -> str:
    reading, writing = os.pipe()
    with os.fdopen(reading) as pipe:
        with os.fdopen(writing):
            # The very same command line, so that flags mean what they meant.
            _, verb, *rest = sys.argv
            own = [argument for argument in rest if argument != "--detach"]
            argv = [sys.executable, "-m", "serve", verb, f"--report-fd={writing}", *own]
            Child.spawn(argv, os.environ, log_path, pass_fds=(writing,))
        # Its end is closed when it is ready, and by the kernel when it is gone.
        return await asyncio.to_thread(pipe.read)


def _report_to(descriptor: int, record: dict[str, Any]) -> None:
    with suppress(BrokenPipeError), os.fdopen(descriptor, "w") as pipe:
        json.dump(record, pipe)
