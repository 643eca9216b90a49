"""Where deeds are done: a Hub with the model, and folders prepared for each deed."""

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from serve.errors import InhouseError, NotPulled, WeightsDamaged
from serve.store import Store
from tests.campaigns import oracle
from tests.campaigns.bundles import packed
from tests.campaigns.forgery import BUNDLE
from tests.campaigns.oracle import Broken
from tests.campaigns.subject import SHARDS, Files, subject
from tests.fakes.fake_hub import FakeHub
from tests.store.models import HUB_SPEC, REPO, store_at

WITHOUT = ("pull", "import")
OLDER = subject(2**40)
PIECE_BYTES = 64 * 1024


@dataclass(frozen=True, slots=True)
class Scene:
    """A Hub that runs, and the model that it has. A bundle of it lies in `place`."""

    place: Path
    hub: FakeHub
    files: Files

    @property
    def endpoint(self) -> str:
        """Where the Hub is."""
        return self.hub.endpoint

    def store(self, where: Path) -> Store:
        """The store in a folder."""
        return store_at(where, self.endpoint)

    def prepare(self, where: Path, deed: str) -> None:
        """Make the folder what the deed begins with."""
        where.mkdir(parents=True)
        if deed in WITHOUT:
            return
        store = self.store(where)
        if deed == "gc":
            self._leave_something(store, where)
        held = store.pull(HUB_SPEC, renew=True)
        if deed == "quarantine":
            _damage(held.path / SHARDS[1])

    def left(self, where: Path, deed: str) -> str:
        """What lies there now, in words; Broken if it must not be."""
        if deed != "quarantine":
            return "the model" if self.is_held(where) else "no model"
        try:
            loaded = self.store(where).ready(HUB_SPEC)
        except InhouseError:  # WeightsDamaged, or it cannot be fetched anew
            return "damage, and no load"
        oracle.check_view(loaded.view, self.files)
        return "the model, fetched anew"

    def again(self, where: Path, deed: str) -> None:
        """Do the same once more, to the end; then have the model. Broken if that cannot be."""
        store = self.store(where)
        with suppress(NotPulled, WeightsDamaged):  # it was gone already; it is damaged still
            match deed:
                case "rm":
                    store.remove(HUB_SPEC.name)
                case "gc":
                    store.clear(unused_s=0.0)
                case "verify" | "quarantine":
                    store.verify(HUB_SPEC.name)
        store.pull(HUB_SPEC)
        if not self.is_held(where):
            raise Broken("it was done again, and then the model could not be had")
        oracle.check_view(store.ready(HUB_SPEC).view, self.files)

    def is_held(self, where: Path) -> bool:
        """Whether an oracle finds the whole model, or none of it."""
        return oracle.held(where, self.files, OLDER)

    def _leave_something(self, store: Store, where: Path) -> None:
        """An older revision that is held, and half a download."""
        self.hub.repos[REPO] = dict(OLDER)
        try:
            store.pull(HUB_SPEC)
        finally:
            self.hub.repos[REPO] = dict(self.files)
        blobs = next((where / "hf" / "hub").glob("models--*/blobs"))
        (blobs / f"{'0' * 64}.inhouse.incomplete").write_bytes(b"half")


@contextmanager
def scene(files: Files, place: Path) -> Iterator[Scene]:
    """A Hub with these files, while the `with` lasts."""
    with FakeHub({REPO: files}) as hub:
        on = Scene(place, hub, files)
        store = on.store(place / "exported")
        store.pull(HUB_SPEC)
        packed(store, place / BUNDLE, PIECE_BYTES)
        yield on


def _damage(file: Path) -> None:
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(content)
