"""`inhouse`: the table of verbs, and the one place where an error becomes an exit code."""

import sys
from collections.abc import Sequence
from typing import Annotated, NoReturn

import typer

from serve import __version__
from serve.cli import output
from serve.cli.bench import bench
from serve.cli.chat import chat
from serve.cli.doctor import doctor
from serve.cli.engines import engine
from serve.cli.errors import INTERRUPTED
from serve.cli.held import ls, rm
from serve.cli.pull import pull
from serve.cli.running import load, logs, ps, stop
from serve.cli.serve import serve
from serve.cli.show import show
from serve.errors import InhouseError

_VERBS = {
    "Serve": (serve, ps, load, stop, logs),
    "Models": (pull, ls, show, rm),
    "Use and look": (chat, doctor, bench),
}

app = typer.Typer(
    name="inhouse",
    help="Serve open-weight language models in your own house.",
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    context_settings={"help_option_names": ["-h", "--help"]},
)
for _panel, _verbs in _VERBS.items():
    for _verb in _verbs:
        app.command(rich_help_panel=_panel)(_verb)
app.add_typer(engine, rich_help_panel="Serve")


@app.callback(invoke_without_command=True)
def inhouse(
    context: typer.Context,
    version: Annotated[
        bool, typer.Option("--version", help="Print the version.", metavar=" ")
    ] = False,
) -> None:
    """Serve open-weight language models in your own house."""
    if version:
        output.put(f"inhouse {__version__}")
    elif context.invoked_subcommand is None:
        output.put(context.get_help())


def main(arguments: Sequence[str] | None = None) -> NoReturn:
    """Run the command line and leave with its exit code; `arguments` None: those of the process."""
    try:
        code = app(args=arguments, prog_name="inhouse", standalone_mode=False)
    except InhouseError as error:
        code = output.show_error(error)
    except typer.TyperException as error:
        context: typer.Context | None = getattr(error, "ctx", None)
        command = context.command_path if context else "inhouse"
        code = output.show_usage(error.format_message(), command)
    except typer.Abort:
        code = INTERRUPTED
    sys.exit(code)
