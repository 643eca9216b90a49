"""Whether files are what was sealed: hashing on all cores, and the seal that follows from it."""

import errno
import os
import time
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

from serve.disk import sha256_of
from serve.errors import SourceUnreachable, UnsafeWeights
from serve.store import manifest as seals
from serve.store.content import check_weights
from serve.store.manifest import Damage, FileRecord, Manifest
from serve.store.parallel import Stop, run_all
from serve.store.progress import Progress

MISSING = "no such file"
_GONE = frozenset({errno.ENOENT, errno.ENOTDIR, errno.EISDIR, errno.ELOOP})
_BROKEN = frozenset({errno.EIO, errno.EUCLEAN})  # the disk's own word that the content is lost


class _Differs(Exception):
    """A file is not what was sealed."""

    def __init__(self, record: FileRecord, actual: str) -> None:
        self.damage = Damage(record.path, record.sha256, actual, time.time())


def checked(found: Manifest, records: Iterable[FileRecord], progress: Progress) -> Manifest:
    """The seal after `records` of its files were read to the end.

    In quarantine (`damage`) at the first one whose content or safetensors header is wrong; else
    with the files' times of now. SourceUnreachable if we may not read a file, or cannot now.
    """
    wanted = sorted(records, key=lambda record: -record.size)
    progress.start(f"checking {found.name}", sum(one.size for one in wanted), len(wanted))
    try:
        fresh = hashed(found.path, wanted, progress)
        check_weights(found.path, [path for path in fresh if path.endswith(".safetensors")])
    except _Differs as differs:
        return replace(found, damage=differs.damage)
    except UnsafeWeights as error:
        damage = Damage(error.file, "a true header", error.reason, time.time())
        return replace(found, damage=damage)
    except OSError as error:
        place, reason = error.filename or found.path, error.strerror or str(error)
        raise SourceUnreachable(str(place), reason) from error
    finally:
        progress.finish()
    return replace(found, files=tuple(fresh.get(one.path, one) for one in found.files))


def hashed(root: Path, records: Iterable[FileRecord], progress: Progress) -> dict[str, FileRecord]:
    """Records of these files as they are now, by path, read with as many threads as there are
    cores. An empty sha256 is filled in; any other must be the file's, or _Differs."""
    stop = Stop()

    def advance(n_bytes: int) -> None:
        stop.check()
        progress.advance(n_bytes)

    def one(record: FileRecord) -> FileRecord:
        # Looked at before it is read: what is written meanwhile is seen as a change next time.
        before = seals.record_of(root, record.path, record.sha256, record.oid)
        try:
            sha256 = sha256_of(root / record.path, advance)
        except OSError as error:
            if not record.sha256 or error.errno not in _GONE | _BROKEN:
                raise
            sha256 = MISSING if error.errno in _GONE else f"{error.strerror}"
        if record.sha256 not in ("", sha256):
            raise _Differs(record, sha256)
        progress.file_done()
        return replace(before, sha256=sha256)

    cores = len(os.sched_getaffinity(0))
    found = run_all(one, list(records), cores, stop)
    return {record.path: record for record in found}
