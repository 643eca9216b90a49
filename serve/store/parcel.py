"""Files of one model on their way to the shelf, kept over any number of attempts.

weights/.pull--<name>/partial/<hash>   grows
                      files/<path>     verified, and on the disk for good
weights/<name>--<digest>               all of them, in one step
"""

from collections.abc import Callable, Iterable
from pathlib import Path

from serve.disk import remove_tree, sync
from serve.store.hub_file import HubFile, verified


class Parcel:
    """The folder of one model. `place`: its name on the shelf, but for the digest; the caller alone
    uses it."""

    def __init__(self, place: Path, repo: str) -> None:
        self.repo = repo
        self._place = place
        self.storage = place.with_name(f".pull--{place.name}")
        self.snapshot = self.storage / "files"

    def partial(self, file: HubFile) -> Path:
        """Where the file grows."""
        return self.storage / "partial" / file.promised

    def lock(self, file: HubFile) -> Path:
        """Held while the file is worked on."""
        return self.storage / "locks" / file.promised

    def holds(self, file: HubFile) -> bool:
        """Whether something lies here as this file; what it is, is for `find` to see."""
        return (self.snapshot / file.path).exists()

    def missing_bytes(self, file: HubFile) -> int:
        """How much room the file will still take."""
        if self.holds(file):
            return 0
        partial = self.partial(file)
        return file.size - (partial.stat().st_size if partial.exists() else 0)

    def find(self, file: HubFile, advance: Callable[[int], None]) -> str | None:
        """The file's sha256 if it is here with the promised content; else None."""
        return verified(file, self.snapshot / file.path, advance)

    def inherit(self, file: HubFile) -> bool:
        """Have a partial file if there is one."""
        return self.partial(file).exists()

    def accept(self, file: HubFile) -> None:
        """Give the partial file, which was verified, its place."""
        target = self.snapshot / file.path
        target.parent.mkdir(parents=True, exist_ok=True)
        sync(self.partial(file))
        self.partial(file).replace(target)
        sync(target.parent)

    def prune(self, paths: Iterable[str]) -> None:
        """Remove all finished files but these."""
        wanted = {self.snapshot / path for path in paths}
        for path in sorted(self.snapshot.rglob("*")):
            if path.is_file() and path not in wanted:
                path.unlink()

    def deliver(self, digest: str) -> Path:
        """Put all finished files onto the shelf, in one step; where they are now."""
        final = self._place.with_name(f"{self._place.name}--{digest[:12]}")
        remove_tree(final)  # of a run that ended before its seal
        self.snapshot.rename(final)
        sync(final.parent)
        remove_tree(self.storage)
        return final
