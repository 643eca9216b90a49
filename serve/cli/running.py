"""Verbs about what runs: ps, load, stop, logs."""

import re
import time
from collections import deque
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, TextIO

import typer

from serve.cli import live, output, rooms
from serve.cli.errors import MODEL, tell
from serve.cli.flags import JsonFlag, with_settings
from serve.cli.show import Model
from serve.control import Status
from serve.errors import NotRunning
from serve.fleet import ModelStatus
from serve.settings import Settings
from serve.units import show_seconds
from serve.wire import from_wire

_FOLLOW_EVERY_S = 0.2
SUPERVISOR_LOG = "supervisor.log"


@with_settings("paths")
def ps(settings: Settings, as_json: JsonFlag = False) -> None:
    """Show what is served now."""
    status = live.client(settings).status()
    if as_json:
        output.put_json(asdict(status))
        return
    output.put_facts(_supervisor_facts(status))
    output.put("")
    head = ("REPLICA", "STATE", "MODE", "CONTEXT", "KV TOKENS", "UP", "RESTARTS", "PID")
    output.put_table(head, [model_row(model) for model in status.models])
    for model in status.models:
        if model.problem is not None:
            output.say(f"{model.replica}: {problem_sentence(model)}", "yellow")
        if model.note is not None:
            output.say(f"{model.replica}: {model.note}", "dim")


@with_settings("paths")
def load(model: Model, settings: Settings, as_json: JsonFlag = False) -> None:
    """Serve one more model; returns when it is ready."""
    loaded = live.client(settings).load(model)
    if as_json:
        output.put_json(asdict(loaded))
    else:
        took = f" after {show_seconds(loaded.ready_after_s)}" if loaded.ready_after_s else ""
        output.say(f"{loaded.name} is ready{took}")


@with_settings("paths")
def stop(
    settings: Settings,
    models: Annotated[
        list[str] | None, typer.Argument(help="Nothing named: everything.", metavar="MODEL")
    ] = None,
    force: Annotated[
        bool, typer.Option("--force", help="Do not wait for running requests.", metavar=" ")
    ] = False,
    as_json: JsonFlag = False,
) -> None:
    """Stop serving models, or all of them and the server."""
    client = live.client(settings)
    for model in models or ():
        client.unload(model)
    if not models:
        client.stop(force)
    if as_json:
        output.put_json({"stopped": models or "everything"})
    else:
        output.say(f"stopped: {', '.join(models or ['everything'])}")


@with_settings("paths")
def logs(
    settings: Settings,
    model: Annotated[
        str | None,
        typer.Argument(
            help="Nothing named: the detached server's, else the only model's.", metavar="MODEL"
        ),
    ] = None,
    follow: Annotated[
        bool, typer.Option("--follow", "-f", help="Go on as it grows.", metavar=" ")
    ] = False,
    lines: Annotated[
        int, typer.Option("--lines", "-n", min=0, help="How many to begin with.")
    ] = 50,
    as_json: JsonFlag = False,
) -> None:
    """Print the log of a model's engine, or of a detached server."""
    path = _log_path(settings, model)
    with path.open(errors="replace") as file:
        last = list(deque(file, lines))
        if as_json:
            output.put_json({"path": str(path), "lines": [line.rstrip("\n") for line in last]})
            return
        output.say(str(path), "dim")
        output.put("".join(last), end="")
        if follow:
            _go_on(file)


def model_row(model: ModelStatus) -> tuple[str, ...]:
    """One line of `ps`."""
    return (
        model.replica,
        model.state,
        model.mode or "",
        f"{model.context_tokens:,}" if model.context_tokens else "",
        f"{model.kv_tokens:,}" if model.kv_tokens else "",
        show_seconds(time.time() - model.started_at) if model.started_at else "",
        str(model.restarts),
        str(model.pid or ""),
    )


def problem_sentence(model: ModelStatus) -> str:
    """The last thing that went wrong with a model, in words."""
    return tell(from_wire(model.problem)).sentence if model.problem else ""


def _supervisor_facts(status: Status) -> list[tuple[str, str]]:
    gateways = ", ".join(f"{g.pid or 'down'}" for g in status.gateways)
    restarts = sum(gateway.restarts for gateway in status.gateways)
    up = show_seconds(time.time() - status.started_at)
    engines = f"{status.runtime}, isolation {status.isolation}" if status.runtime else "none"
    return [
        ("address", status.address),
        ("supervisor", f"pid {status.pid}, up {up}, inhouse {status.version}"),
        ("gateways", f"pid {gateways}" + (f", {restarts} restarts" if restarts else "")),
        ("engines", engines),
    ]


def _log_path(settings: Settings, model: str | None) -> Path:
    running = {m.name: m.log_path for m in _models(settings)}
    detached = rooms.log_dir(settings) / SUPERVISOR_LOG
    if model is None and (detached.exists() or len(running) != 1):
        return _there(detached)
    name = rooms.catalog(settings).find(model or next(iter(running))).name
    if path := running.get(name):
        return _there(Path(path))
    # As the engines' pool names them: REPLICA@WHEN.log, the model's name without odd characters.
    own = re.compile(re.sub(r"[^\w.-]", "_", name) + r"-\d+@.*\.log")
    folder = rooms.log_dir(settings)
    earlier = [path for path in folder.glob("*.log") if own.fullmatch(path.name)]
    newest = max(earlier, key=lambda path: path.stat().st_mtime, default=None)
    return newest or _there(folder / f"{name}-0.log")


def _models(settings: Settings) -> tuple[ModelStatus, ...]:
    try:
        return live.client(settings).status().models
    except NotRunning:
        return ()


def _there(path: Path) -> Path:
    if not path.exists():
        output.say(f"no such log: {path} (a server in the foreground talks to its terminal)")
        raise typer.Exit(MODEL)
    return path


def _go_on(file: TextIO) -> None:
    """Like `tail -f`: engines write to files, which cannot be waited for portably."""
    while True:
        text = file.read()
        if text:
            output.put(text, end="")
        else:
            time.sleep(_FOLLOW_EVERY_S)
