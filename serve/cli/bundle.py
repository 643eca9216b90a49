"""`inhouse bundle`: weights in one file, for the way across an air gap."""

import time
from dataclasses import asdict
from datetime import datetime
from pathlib import Path
from typing import Annotated, Any

import typer

from serve.bundle import Importer, Order, Trust, inspect, read_private_key
from serve.bundle import export as export_bundle
from serve.cli import output, rooms
from serve.cli.flags import JsonFlag, with_settings
from serve.cli.locked import LockedFlag, wished_lock
from serve.cli.progress import progress
from serve.errors import BadFile, SettingsError
from serve.lock import Lock
from serve.settings import Settings
from serve.store import Progress, Weights
from serve.units import parse_bytes, show_bytes

Models = Annotated[
    list[str], typer.Argument(help="Names, aliases or repositories.", metavar="MODEL")
]
Target = Annotated[Path, typer.Argument(help="The bundle to write.", metavar="FILE")]
Parts = Annotated[list[Path], typer.Argument(help="A bundle, or any of its parts.", metavar="FILE")]
_SHOWN_HEX = 16


@with_settings("paths", "hub", "policy")
def export(
    models: Models,
    target: Target,
    settings: Settings,
    max_size: Annotated[
        str | None,
        typer.Option("--max-size", help="Make parts smaller than this: 4GiB.", metavar="SIZE"),
    ] = None,
    sign: Annotated[
        Path | None,
        typer.Option("--sign", help="Sign with this Ed25519 key (PEM).", metavar="KEY"),
    ] = None,
    sign_oms: Annotated[
        Path | None,
        typer.Option(
            "--sign-oms",
            help="Sign by OpenSSF's rules, with an elliptic-curve key (PEM).",
            metavar="KEY",
        ),
    ] = None,
    as_json: JsonFlag = False,
) -> None:
    """Write the weights of models into one file, or into parts for USB sticks."""
    catalog, store = rooms.catalog(settings), rooms.store(settings)
    specs = list(dict.fromkeys(catalog.find(name) for name in models))
    order = Order(
        target.absolute(),
        int(time.time()),
        _size(max_size),
        read_private_key(sign) if sign else None,
        sign_oms,
    )
    written = export_bundle(specs, store, rooms.policy(settings), order, progress())
    if as_json:
        output.put_json(asdict(written))
    else:
        rows = [(str(file), show_bytes(file.stat().st_size)) for file in written.files]
        output.put_table(("FILE", "SIZE"), rows)
        output.say(f"bundle {written.id[:_SHOWN_HEX]}, {_signed(written.signer)}")


@with_settings("policy.signers")
def verify(files: Parts, settings: Settings, as_json: JsonFlag = False) -> None:
    """Hash every piece of a bundle; says what is wrong or missing, and who signed."""
    report = inspect(files, Trust.in_keys(settings.policy.signers), progress())
    if as_json:
        output.put_json(asdict(report) | {"is_good": report.is_good})
    else:
        rows = [
            (
                str(part.path),
                str(part.number or "-"),
                part.problem or f"good, {_signed(part.signer)}",
            )
            for part in report.parts
        ]
        output.put_table(("FILE", "PART", "STATE"), rows)
        held = [(m.name, show_bytes(m.total_bytes), m.revision[:12], m.license, m.source)
                for m in report.models]  # fmt: skip
        output.put_table(("MODEL", "SIZE", "REVISION", "LICENCE", "SOURCE"), held)
        output.say(f"bundle {report.id[:_SHOWN_HEX]}, made {_when(report.created_at)}")
    bad = next((part for part in report.parts if part.problem), None)
    if bad is not None and bad.problem is not None:
        raise BadFile(str(bad.path), bad.problem)
    if report.missing:
        numbers = ", ".join(map(str, report.missing))
        problem = f"not all parts are here; missing: {numbers}"
        raise BadFile(str(files[0]), problem)


@with_settings("paths", "hub", "policy")
def import_(
    files: Parts, settings: Settings, is_locked: LockedFlag = False, as_json: JsonFlag = False
) -> None:
    """Verify a bundle, or some of its parts, and take its models in."""
    catalog, store = (
        rooms.catalog(settings),
        rooms.store(settings, wished_lock(settings, is_locked)),
    )
    trust = Trust.in_keys(settings.policy.signers)
    taken = Importer(store, catalog, trust, progress()).take(files)
    if as_json:
        record: dict[str, Any] = {"id": taken.id, "created_at": taken.created_at}
        weights = [asdict(one) for one in taken.weights]
        output.put_json(record | {"signer": taken.signer, "weights": weights})
    else:
        rows = [(w.name, show_bytes(w.total_bytes), w.revision[:12], str(w.path))
                for w in taken.weights]  # fmt: skip
        output.put_table(("MODEL", "SIZE", "REVISION", "PATH"), rows)
        output.say(
            f"bundle {taken.id[:_SHOWN_HEX]}, made {_when(taken.created_at)}, "
            f"{_signed(taken.signer)}"
        )


def unbundle(
    settings: Settings, lock: Lock | None, path: Path, name: str, shown: Progress
) -> Weights:
    """One model of a bundle into the store, for `pull`; parts lie beside each other."""
    store, trust = rooms.store(settings, lock), Trust.in_keys(settings.policy.signers)
    return Importer(store, rooms.catalog(settings), trust, shown).take_one(path, name)


def _size(text: str | None) -> int | None:
    if text is None:
        return None
    try:
        return parse_bytes(text)
    except ValueError as error:
        raise SettingsError("flag", "--max-size", str(error)) from error


def _signed(signer: str | None) -> str:
    return f"signed by {signer}" if signer else "not signed"


def _when(at_s: int) -> str:
    return datetime.fromtimestamp(at_s).strftime("%Y-%m-%d %H:%M")
