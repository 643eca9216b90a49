"""`inhouse doctor`: what this machine can do, what is missing, and the cure."""

from collections.abc import Callable
from dataclasses import asdict
from typing import TypeVar

import typer

from serve.cli import live, output, rooms
from serve.cli.errors import ENGINE
from serve.cli.flags import JsonFlag, with_settings
from serve.cli.machine import read
from serve.engine import doctor_checks
from serve.errors import RuntimeMissing
from serve.hardware import Machine
from serve.settings import Settings
from serve.units import show_bytes

_T = TypeVar("_T")


@with_settings("paths", "engine", "hub")
def doctor(settings: Settings, as_json: JsonFlag = False) -> None:
    """Look at this machine: what it can do, what is missing, and the cure.

    The exit code is 0 if engines can run here.
    """
    machine = read(settings)
    runtime = _unless_missing(lambda: live.runtimes(settings).find(live.device(settings)))
    disks = (("disk", settings.paths.home), ("disk of the Hub's cache", settings.hub.home))
    paths = settings.paths
    checks = doctor_checks(runtime, machine, paths.run, rooms.log_dir(settings), disks)
    facts = [*_machine_facts(machine), *_place_facts(settings)]
    if as_json:
        record = {"facts": dict(facts), "checks": [asdict(check) for check in checks]}
        output.put_json(record | {"machine": asdict(machine)})
    else:
        output.put_facts(facts)
        output.put("")
        for check in checks:
            output.put_check(check.name, check.is_ok, check.found, check.cure, check.is_needed)
    if any(not check.is_ok and check.is_needed for check in checks):
        raise typer.Exit(ENGINE)


def _unless_missing(find: Callable[[], _T]) -> _T | None:
    try:
        return find()
    except RuntimeMissing:
        return None


def _machine_facts(machine: Machine) -> list[tuple[str, str]]:
    cpu = machine.cpu
    memory = f"{show_bytes(cpu.free_bytes)} free of {show_bytes(cpu.total_bytes)}"
    facts = [("processor", f"{cpu.name}, {len(cpu.cores)} cores"), ("memory", memory)]
    for gpu in machine.gpus:
        free = f"{show_bytes(gpu.free_bytes)} free of {show_bytes(gpu.total_bytes)}"
        facts.append((f"GPU {gpu.index}", f"{gpu.name}, {free}, driver {machine.driver}"))
    if not machine.gpus:
        facts.append(("GPU", machine.gpu_problem or "none: engines run on the processor"))
    return facts


def _place_facts(settings: Settings) -> list[tuple[str, str]]:
    token = "yes" if settings.hub.token else "no"
    return [
        ("home", str(settings.paths.home)),
        ("Hub", f"{settings.hub.endpoint}, token: {token}"),
    ]
