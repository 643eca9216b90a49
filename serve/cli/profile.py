"""`inhouse profile`: the memory that launches took, which plans are calibrated with."""

import difflib
import time
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer

from serve.cli import output, rooms
from serve.cli.flags import JsonFlag, with_settings
from serve.errors import SettingsError
from serve.profiles import Profile
from serve.settings import Settings
from serve.units import show_ago, show_bytes

_HEAD = ("MODEL", "MEASURED", "WHAT")
_TERMS = (
    ("weights", "weights_bytes"),
    ("activations", "activation_bytes"),
    ("graphs", "graph_bytes"),
    ("other", "other_bytes"),
    ("left for the KV cache", "available_kv_bytes"),
)

File = Annotated[Path, typer.Argument(help="JSON, as export writes it.", metavar="FILE")]


@with_settings("paths")
def ls(settings: Settings, as_json: JsonFlag = False) -> None:
    """List the launches that were measured, the newest first."""
    profiles = rooms.book(settings).all()
    if as_json:
        output.put_json([_record(profile) for profile in profiles])
    elif profiles:
        output.put_table(_HEAD, [_row(profile) for profile in profiles])
    else:
        output.say("no launch was measured here yet: inhouse serve MODEL")


@with_settings("paths")
def export(settings: Settings, file: File, as_json: JsonFlag = False) -> None:
    """Write all of them into one file, for other machines of the same kind."""
    count = rooms.book(settings).export_to(file)
    if as_json:
        output.put_json({"file": file, "profiles": count})
    else:
        output.say(f"{file}: {_count(count)}")


@with_settings("paths")
def import_(settings: Settings, file: File, as_json: JsonFlag = False) -> None:
    """Take in what export wrote on another machine."""
    added = rooms.book(settings).import_from(file)
    if as_json:
        output.put_json({"file": file, "added": added})
    else:
        output.say(f"{_count(added)} taken in" if added else "nothing new in it")


@with_settings("paths")
def rm(
    settings: Settings,
    models: Annotated[
        list[str], typer.Argument(help="As ls names them; all: every one.", metavar="MODEL")
    ],
    as_json: JsonFlag = False,
) -> None:
    """Forget the launches of models; the next plans estimate again."""
    book = rooms.book(settings)
    profiles = book.all()
    known = {profile.model for profile in profiles}
    for name in models:
        if name not in known | {"all"}:
            problem = f"no launch of it was measured: {name!r}"
            near = difflib.get_close_matches(name, sorted(known), n=1)
            raise SettingsError("flag", "MODEL", problem, near[0] if near else None)
    gone = [p for p in profiles if p.model in models or "all" in models]
    book.remove({profile.key for profile in gone})
    if as_json:
        output.put_json({"forgotten": len(gone)})
    else:
        output.say(f"{_count(len(gone))} forgotten")


def _row(profile: Profile) -> tuple[str, ...]:
    return profile.model, show_ago(time.time() - profile.measured_at), _what(profile)


def _place(profile: Profile) -> str:
    key = profile.key
    ranks = key.tensor_parallel * key.pipeline_parallel * key.data_parallel
    return key.device if ranks == 1 else f"{ranks} × {key.device}"


def _what(profile: Profile) -> str:
    key = profile.key
    terms = [
        f"{name} {show_bytes(size)}"
        for name, field in _TERMS
        if (size := getattr(profile, field)) is not None
    ]
    if profile.kv_tokens is not None:
        terms.append(f"{profile.kv_tokens:,} tokens of it")
    batches = f"{key.max_num_batched_tokens} tokens and {key.max_num_seqs} sequences a step"
    failed = ["did not start"] if profile.outcome == "failed" else []
    place = f"{_place(profile)}, vLLM {key.engine_version}, {batches}"
    return "\n".join([place, "; ".join([*failed, *terms]) or "nothing said"])


def _record(profile: Profile) -> dict[str, Any]:
    return asdict(profile) | {"measured_at": output.moment(profile.measured_at)}


def _count(number: int) -> str:
    return f"{number} profile{'' if number == 1 else 's'}"
