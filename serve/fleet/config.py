"""What a fleet is told once."""

from dataclasses import dataclass, field

from serve.plan import Wishes
from serve.profiles import Lessons, ProfileBook
from serve.quota import Key, Tenant
from serve.settings import ModelTerms


@dataclass(frozen=True, slots=True)
class FleetConfig:
    """`keys`: who may enter, None: everybody. `drain_s`: see `Fleet.unload`.
    `book`: where measurements are kept, None: nowhere. `engine_args`: the operator's own flags,
    under which they were taken. `lessons`: what failed starts have taught. `models`: terms of those
    that have any, and where those of somebody else are. `probe_s`: how often these are asked."""

    wishes: Wishes
    keys: tuple[Key, ...] | None
    drain_s: float
    book: ProfileBook | None = None
    engine_args: tuple[str, ...] = ()
    lessons: Lessons = field(default_factory=lambda: Lessons(None))
    models: tuple[ModelTerms, ...] = ()
    tenants: tuple[Tenant, ...] = ()
    probe_s: float = 2.0
