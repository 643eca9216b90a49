"""The rooms where something runs, furnished from settings: runtimes, device, supervisor.

Beside `serve.cli.rooms` because they are slow to import: only verbs that need them do.
"""

from pathlib import Path
from typing import Literal

from serve.cli import machine, rooms
from serve.control import Client
from serve.engine import Runtimes
from serve.settings import Settings

Device = Literal["cpu", "cuda"]


def runtimes(settings: Settings) -> Runtimes:
    """The vLLM versions installed here."""
    return Runtimes(settings.paths.home, settings.engine.python)


def device(settings: Settings) -> Device:
    """What engines run on: as wished, else what the machine has."""
    wished = settings.engine.device
    return machine.read(settings).device if wished == "auto" else wished


def convert(settings: Settings, gguf: Path, target: Path) -> None:
    """GGUF to safetensors, with the runtime of this device; ConversionFailed, RuntimeMissing."""
    runtimes(settings).find(device(settings)).convert(gguf, target)


def client(settings: Settings) -> Client:
    """The way to the supervisor that runs, if one does."""
    return Client(rooms.control_socket(settings))
