"""`inhouse`: the table of verbs, and the one place where an error becomes an exit code."""

import atexit
import gc
import os
import sys
from collections.abc import Sequence
from typing import Annotated, NoReturn

import typer
from typer.core import TyperGroup

from serve import __version__
from serve.cli import output
from serve.cli.errors import INTERRUPTED
from serve.cli.verb import LightGroup, Verb, group
from serve.errors import InhouseError

# Panel of the help → its verbs: name, where it lives, the first paragraph of its docstring. A verb
# is imported when it is called, so none waits for what only others need.
# fmt: off
_VERBS = {
    "Serve": (
        Verb("serve", "serve.cli.serve:serve",
             "Serve models behind one OpenAI-style API."),
        Verb("ps", "serve.cli.running:ps",
             "Show what is served now."),
        Verb("load", "serve.cli.running:load",
             "Serve one more model; returns when it is ready."),
        Verb("stop", "serve.cli.running:stop",
             "Stop serving models, or all of them and the server."),
        Verb("logs", "serve.cli.running:logs",
             "Print the log of a model's engine, or of a detached server."),
        group("engine", "Install, list and remove runtimes (vLLM versions).",
            Verb("install", "serve.cli.engines:install",
                 "Install the runtime for this machine; at once when it is there."),
            Verb("ls", "serve.cli.engines:ls",
                 "List the runtimes that are installed."),
            Verb("rm", "serve.cli.engines:rm",
                 "Remove runtimes from the disk."),
        ),
    ),
    "Keys and books": (
        group("key", "API keys: who may come in, to what, how much of it.",
            Verb("create", "serve.cli.key:create",
                 "Make a key; its text is printed now and never again."),
            Verb("ls", "serve.cli.key:ls",
                 "List the keys: never their text, which nobody has but their holders."),
            Verb("show", "serve.cli.key:show",
                 "Show what a key may do, and whether it works; finds typos in the text of one."),
            Verb("revoke", "serve.cli.key:revoke",
                 "Take a key back, at once and for ever."),
            Verb("rotate", "serve.cli.key:rotate",
                 "Make a successor on the same terms; the old key works on for a while."),
        ),
        Verb("usage", "serve.cli.usage:usage",
             "Show who used how much of what, and what it cost."),
        group("audit", "The log of who did what, when, from where.",
            Verb("ls", "serve.cli.audit:ls",
                 "List what was done, the newest last."),
            Verb("verify", "serve.cli.audit:verify",
                 "Read every record; finds what was changed, removed, put in or put elsewhere."),
            Verb("export", "serve.cli.audit:export",
                 "Print records for other programs, one a line."),
        ),
    ),
    "Models": (
        Verb("plan", "serve.cli.plan:plan",
             "Say whether models fit, with what context for how many, before a download."),
        Verb("pull", "serve.cli.pull:pull",
             "Fetch, verify and seal the weights of models."),
        Verb("ls", "serve.cli.held:ls",
             "List the models whose weights are here."),
        Verb("show", "serve.cli.show:show",
             "Show what is known of a model, and of its weights if they are here."),
        Verb("verify", "serve.cli.verify:verify",
             "Read weights again, every byte, and compare them with what was verified."),
        Verb("lock", "serve.cli.lock:lock",
             "Write down in a lock file which bytes are meant, and show what is different."),
        Verb("rm", "serve.cli.held:rm",
             "Remove the weights of models from the disk."),
        Verb("gc", "serve.cli.gc:gc",
             "Show what nobody needs any more on the disk, and what it would free."),
        group("bundle", "Move weights across an air gap: export, verify, import.",
            Verb("export", "serve.cli.bundle:export",
                 "Write the weights of models into one file, or into parts for USB sticks."),
            Verb("verify", "serve.cli.bundle:verify",
                 "Hash every piece of a bundle; says what is wrong or missing, and who signed."),
            Verb("import", "serve.cli.bundle:import_",
                 "Verify a bundle, or some of its parts, and take its models in."),
        ),
        Verb("mirror", "serve.cli.mirror:mirror",
             "Give the weights that are here to other machines, in the Hub's own protocol."),
    ),
    "Use and look": (
        Verb("chat", "serve.cli.chat:chat",
             "Talk to a model that is served. Ctrl-C stops an answer, Ctrl-D leaves."),
        group("profile", "Memory that launches took: what plans are calibrated with.",
            Verb("ls", "serve.cli.profile:ls",
                 "List the launches that were measured, the newest first."),
            Verb("export", "serve.cli.profile:export",
                 "Write all of them into one file, for other machines of the same kind."),
            Verb("import", "serve.cli.profile:import_",
                 "Take in what export wrote on another machine."),
            Verb("rm", "serve.cli.profile:rm",
                 "Forget the launches of models; the next plans estimate again."),
        ),
        Verb("devices", "serve.cli.devices:devices",
             "Show the graphics cards and the processor, what is free, and who is on them."),
        Verb("doctor", "serve.cli.doctor:doctor",
             "Look at this machine: what it can do, what is missing, and the cure."),
        Verb("bench", "serve.cli.bench:bench",
             "Measure throughput and latency of a server that runs (a closed loop)."),
    ),
}
# fmt: on


def _version(is_asked: bool) -> None:
    if is_asked:
        output.put(f"inhouse {__version__}")
        raise typer.Exit


Version = Annotated[
    bool,
    # Eager, as --help is: before the other flags are read, for which typer may import pydantic.
    typer.Option(
        "--version", help="Print the version.", metavar=" ", callback=_version, is_eager=True
    ),
]


def inhouse(context: typer.Context, version: Version = False) -> None:
    """Serve open-weight language models in your own house."""
    if context.invoked_subcommand is None:
        output.put(context.get_help())


def app() -> TyperGroup:
    """The whole command line: `inhouse`, with every verb and group of the table."""
    bare = typer.Typer(context_settings={"help_option_names": ["-h", "--help"]})
    bare.callback(cls=LightGroup, invoke_without_command=True)(inhouse)
    root = typer.main.get_command(bare)
    assert isinstance(root, TyperGroup)
    for panel, verbs in _VERBS.items():
        for verb in verbs:
            verb.rich_help_panel = panel
            root.add_command(verb)
    return root


def main(arguments: Sequence[str] | None = None) -> NoReturn:
    """Run the command line and leave with its exit code; `arguments` None: those of the process."""
    # To find that there are none, pydantic would read the metadata of all that is installed.
    os.environ.setdefault("PYDANTIC_DISABLE_PLUGINS", "__all__")
    # At its very end Python would look at each object once more; the kernel frees them all at once.
    atexit.register(gc.freeze)
    try:
        code = app().main(args=arguments, prog_name="inhouse", standalone_mode=False)
    except InhouseError as error:
        code = output.show_error(error)
    except typer.TyperException as error:
        context: typer.Context | None = getattr(error, "ctx", None)
        command = context.command_path if context else "inhouse"
        code = output.show_usage(error.format_message(), command)
    except typer.Abort:
        code = INTERRUPTED
    sys.exit(code)
