"""`inhouse serve`: in the foreground until Ctrl-C, or detached."""

from dataclasses import asdict
from typing import Annotated

import typer

from serve.cli import live, output
from serve.cli.auto import chosen
from serve.cli.detach import detach, report_error, report_ready
from serve.cli.flags import JsonFlag, with_settings
from serve.cli.locked import LockedFlag, wished_lock
from serve.cli.serving import run
from serve.control import Status
from serve.errors import InhouseError
from serve.fleet import ModelStatus
from serve.log import configure
from serve.settings import Settings
from serve.units import show_seconds

STARTER = "smollm2-135m-instruct"


@with_settings("server", "engine", "request", "ledger", "traces", "paths", "hub", "policy", "log")
def serve(
    settings: Settings,
    models: Annotated[
        list[str] | None,
        typer.Argument(
            help=f"auto: the best for this machine. Nothing named: server.models, else {STARTER}.",
            metavar="MODEL",
        ),
    ] = None,
    is_detached: Annotated[
        bool, typer.Option("--detach", help="Return when ready; inhouse stop ends it.", metavar=" ")
    ] = False,
    is_installing: Annotated[
        bool, typer.Option("--install", help="Install the runtime first, if it is missing.")
    ] = False,
    is_locked: LockedFlag = False,
    report_fd: Annotated[int | None, typer.Option(hidden=True)] = None,
    as_json: JsonFlag = False,
) -> None:
    """Serve models behind one OpenAI-style API."""
    foreign = tuple(model.name for model in settings.models if model.urls)
    wished = tuple(models or settings.server.models or foreign or (STARTER,))
    names = chosen(settings, wished)
    has_key = settings.server.api_key is not None

    def ready(status: Status) -> None:
        if report_fd is not None:
            report_ready(report_fd, status)
        if as_json:
            output.put_json(asdict(status))
        else:
            _tell_ready(status, has_key, "inhouse stop" if is_detached else "Ctrl-C")

    if is_installing and settings.engine.python is None:
        live.runtimes(settings).install(live.device(settings), output.say)
    if is_detached:
        ready(detach(settings, names))
        return
    configure(settings.log.level, "supervisor")
    try:
        run(settings, names, ready, wished_lock(settings, is_locked))
    except InhouseError as error:
        if report_fd is not None:
            report_error(report_fd, error)
        raise


def _tell_ready(status: Status, has_key: bool, end: str) -> None:
    """The one block of talk that says how to use what is served."""
    output.say("")
    for model in status.models:
        output.say(f"  {model.replica}: {_how_it_is(model)}", "bold")
    output.say(f"  OpenAI API: {status.address}/v1", "bold")
    output.say("")
    output.say(_curl(status.address, status.models[0].name, has_key))
    output.say("")
    output.say(f"  pid {status.pid}; {end} ends it", "dim")


def _how_it_is(model: ModelStatus) -> str:
    """`ready after 8.1 s, 8,192 tokens of context`, as far as that is known."""
    is_ready = model.state == "ready"
    took = f" after {show_seconds(model.ready_after_s)}" if is_ready and model.ready_after_s else ""
    words = [f"{model.state}{took}"]
    if model.context_tokens:
        words.append(f"{model.context_tokens:,} tokens of context")
    if model.address:
        words.append(model.address)
    return ", ".join(words)


def _curl(address: str, model: str, has_key: bool) -> str:
    key = '    -H "Authorization: Bearer $INHOUSE_API_KEY" \\\n' if has_key else ""
    return (
        f"  curl {address}/v1/chat/completions \\\n{key}"
        "    -H 'Content-Type: application/json' -d '{\n"
        f'      "model": "{model}",\n'
        '      "messages": [{"role": "user", "content": "What is the capital of France?"}]\n'
        "    }'"
    )
