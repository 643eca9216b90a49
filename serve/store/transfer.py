"""Files of a Hub into its cache: several at once, hashed while they are written, taken up again at
any byte, and accepted when they are what was promised."""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from serve.disk import disk_errors, locked, require_room
from serve.errors import LockMismatch, StoreError
from serve.store.hub_file import Hashes, HubFile
from serve.store.manifest import FileRecord, record_of
from serve.store.parallel import Stop, run_all
from serve.store.progress import Progress

_TRIES = 3
_PAUSE_S = 0.5
_LONGEST_PAUSE_S = 60.0
_PROGRESS_BYTES = 2**20  # what makes up for a failure
_TELL_BYTES, _TELL_S = 2**20, 0.2


@dataclass
class TryAgain(Exception):
    """A transfer ended for a reason that may pass. `error` is raised if it does not; `after_s`:
    the source asks for that much patience."""

    error: StoreError
    after_s: float = 0.0


class Origin(Protocol):
    """Where the bytes of files come from."""

    def reading(
        self, file: HubFile, begin: int, stop: Stop
    ) -> AbstractContextManager[tuple[int, Iterator[bytes]]]:
        """The file from byte `begin` on, and where that really begins.

        Raises TryAgain, and other errors of the store for what will not pass.
        """
        ...


class Place(Protocol):
    """Where files grow, and where they lie once they are right."""

    repo: str
    storage: Path
    snapshot: Path

    def partial(self, file: HubFile) -> Path: ...
    def lock(self, file: HubFile) -> Path: ...
    def holds(self, file: HubFile) -> bool: ...
    def missing_bytes(self, file: HubFile) -> int: ...
    def find(self, file: HubFile, advance: Callable[[int], None]) -> str | None: ...
    def inherit(self, file: HubFile) -> bool: ...
    def accept(self, file: HubFile) -> None: ...


class Transfer:
    """Has files in the snapshot of `place`, verified; what is missing comes from `origin`.

    `expected`: the sha256 that each path must have, whatever the origin promises (a lock).
    """

    def __init__(
        self, origin: Origin, place: Place, progress: Progress, parallel: int,
        expected: Mapping[str, str] | None = None,
    ) -> None:  # fmt: skip
        self._origin, self._place, self._progress = origin, place, progress
        self._parallel, self._expected = parallel, expected

    def show(self, files: Sequence[HubFile], done: Sequence[HubFile] = ()) -> None:
        """Begin the display for these files, of which some are `done`."""
        total_bytes = sum(file.size for file in files)
        self._progress.start(self._place.repo, total_bytes, len(files))
        self._progress.advance(sum(file.size for file in done))
        for _ in done:
            self._progress.file_done()

    def obtain(self, files: Sequence[HubFile]) -> list[FileRecord]:
        """Records of these files; several at once, the biggest first."""
        for file in files:
            self._check_promise(file)
        require_room(self._place.storage, sum(map(self._place.missing_bytes, files)))
        if held := sum(map(self._place.holds, files)):
            self._progress.note(f"here already, to be verified: {held} of {len(files)} files")
        same: dict[str, list[HubFile]] = {}
        for file in sorted(files, key=lambda one: -one.size):
            same.setdefault(file.promised, []).append(file)
        stop = Stop()

        def work(twins: list[HubFile]) -> list[FileRecord]:
            return [self._obtain_one(file, stop) for file in twins]

        found = run_all(work, list(same.values()), self._parallel, stop)
        records = {record.path: record for some in found for record in some}
        return [records[file.path] for file in files]

    def _obtain_one(self, file: HubFile, stop: Stop) -> FileRecord:
        def waiting() -> None:
            self._progress.note(f"somebody else is downloading {file.path}: waiting")

        advance = _Steps(self._progress.advance, stop)
        with locked(self._place.lock(file), waiting):
            stop.check()
            found = self._place.find(file, advance)
            sha256 = found or self._download(file, advance, stop)
            self._check_locked(file, sha256)
        advance.flush()
        self._progress.file_done()
        return record_of(self._place.snapshot, file.path, sha256, file.promised)

    def _download(self, file: HubFile, advance: "_Steps", stop: Stop) -> str:
        """The sha256 of the new blob. What was not wrong is kept for the next attempt."""
        partial = self._place.partial(file)
        was_there = self._place.inherit(file)
        with disk_errors(partial, file.size), _Growing(file, partial, advance, stop) as growing:
            try:
                self._fill(growing, stop)
            except OSError:
                growing.discard()  # leave the disk no fuller than it was
                raise
            if was_there and not growing.hashes.is_right:
                self._progress.note(f"the first part of {file.path} was damaged: beginning again")
                growing.truncate()
                self._fill(growing, stop)
            if not growing.hashes.is_right:
                growing.discard()
                raise growing.hashes.mismatch(growing.size)
            self._check_locked(file, growing.hashes.sha256)
            self._place.accept(file)
        return growing.hashes.sha256

    def _fill(self, growing: "_Growing", stop: Stop) -> None:
        """Bring the partial file to its full size, in several attempts if need be."""
        failures = 0
        while growing.size < growing.file.size:
            before = growing.size
            try:
                with self._origin.reading(growing.file, before, stop) as (begin, pieces):
                    if begin != before:
                        growing.truncate()
                        if begin:  # neither what was asked for nor the whole
                            raise TryAgain(growing.hashes.mismatch(0))
                    for piece in pieces:
                        growing.add(piece)
                if growing.size < growing.file.size:
                    raise TryAgain(growing.hashes.mismatch(growing.size))
            except TryAgain as failed:
                if growing.size == growing.file.size:
                    return
                failures = 1 if growing.size - before >= _PROGRESS_BYTES else failures + 1
                if failures >= _TRIES:
                    raise failed.error from failed
                stop.wait(min(max(_PAUSE_S * failures, failed.after_s), _LONGEST_PAUSE_S))

    def _check_promise(self, file: HubFile) -> None:
        """LockMismatch if the file is not locked, or is promised with another hash."""
        if self._expected is not None and file.path not in self._expected:
            raise LockMismatch(self._place.repo, file.path, "", file.promised)
        if file.has_sha256:
            self._check_locked(file, file.promised)

    def _check_locked(self, file: HubFile, sha256: str) -> None:
        if self._expected is not None and self._expected[file.path] != sha256:
            raise LockMismatch(self._place.repo, file.path, self._expected[file.path], sha256)


class _Growing:
    """A partial file, open, with the hashes of what it holds. Stopped comes before any write."""

    def __init__(self, file: HubFile, path: Path, advance: "_Steps", stop: Stop) -> None:
        self.file, self._path, self._advance, self._stop = file, path, advance, stop
        self.size, self.hashes = 0, Hashes(file)

    def __enter__(self) -> "_Growing":
        self._path.parent.mkdir(parents=True, exist_ok=True)
        self._target = self._path.open("a+b", buffering=0)
        try:
            self._target.seek(0)
            for n_bytes in self.hashes.reading(self._target):
                self._count(n_bytes)
            if self.size > self.file.size:
                self.truncate()
        except BaseException:
            self._target.close()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self._target.close()

    def add(self, piece: bytes) -> None:
        """Append. HashMismatch if that makes the file longer than it should be."""
        self._stop.check()
        if self.size + len(piece) > self.file.size:
            self.discard()
            raise self.hashes.mismatch(self.size + len(piece))
        view = memoryview(piece)
        while view:
            view = view[self._target.write(view) :]
        self.hashes.update(piece)
        self._count(len(piece))

    def truncate(self) -> None:
        """Begin again."""
        self._target.truncate(0)
        self._advance(-self.size)
        self.size, self.hashes = 0, Hashes(self.file)

    def discard(self) -> None:
        self._path.unlink(missing_ok=True)

    def _count(self, n_bytes: int) -> None:
        self.size += n_bytes
        self._advance(n_bytes)


class _Steps:
    """Tells of bytes in steps that are worth drawing; nothing more once the work was ended."""

    def __init__(self, advance: Callable[[int], None], stop: Stop) -> None:
        self._tell, self._stop = advance, stop
        self._untold, self._told_at = 0, time.monotonic()

    def __call__(self, n_bytes: int) -> None:
        self._untold += n_bytes
        now = time.monotonic()
        if abs(self._untold) >= _TELL_BYTES or now - self._told_at >= _TELL_S:
            self.flush()

    def flush(self) -> None:
        self._stop.check()
        if self._untold:
            self._tell(self._untold)
        self._untold, self._told_at = 0, time.monotonic()
