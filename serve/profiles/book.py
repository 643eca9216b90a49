"""The book of profiles: a folder with one small file per key."""

import hashlib
import json
import logging
import time
from collections.abc import Iterable
from dataclasses import asdict
from pathlib import Path

from serve.disk import disk_errors, locked, write_atomically
from serve.errors import BadFile
from serve.log import fields
from serve.profiles.form import read_file, to_text
from serve.profiles.profile import Profile, ProfileKey

_log = logging.getLogger(__name__)
_LOCK = ".lock"
# Of one key: the newest tell what holds today, an older one may hold what they do not say.
_MOST_OF_A_KEY = 8
# Clocks differ; but a launch of next year would be the newest for a year.
_TOLERATED_CLOCK_S = 24 * 3600.0


class ProfileBook:
    """What launches took, under `folder`; it need not be there yet.

    Several processes may read and write. A file of the book that cannot be read counts as not
    there, with a warning: a plan without it is a little less exact, and the next launch writes it
    anew.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def find(self, key: ProfileKey) -> Profile | None:
        """The most telling profile of this key: of an engine that became ready before one that did
        not, of those that say what memory was left for the cache, the newest. (An engine that is
        told the size of its cache does not say it any more.)"""
        return max(self._read(self._file(key)), key=_worth, default=None)

    def record(self, profile: Profile) -> None:
        """Keep a launch. DiskFull, NotWritable."""
        self._add([profile])

    def all(self) -> tuple[Profile, ...]:
        """Every profile, the newest first."""
        files = sorted(self._folder.glob("*.json"))
        return _sorted(profile for file in files for profile in self._read(file))

    def export_to(self, path: Path) -> int:
        """Write all profiles into one file to share; returns how many. DiskFull, NotWritable."""
        profiles = self.all()
        with disk_errors(path):
            write_atomically(path, to_text(profiles).encode())
        return len(profiles)

    def import_from(self, path: Path) -> int:
        """Add the profiles of a file made by `export_to`; returns how many were new. All or, with
        BadFile, none of them. DiskFull, NotWritable."""
        try:
            profiles = read_file(path)
        except FileNotFoundError as error:
            raise BadFile(str(path), "is not there") from error
        latest = time.time() + _TOLERATED_CLOCK_S
        for place, profile in enumerate(profiles):
            if profile.measured_at > latest:
                problem = f"lies in the future: {profile.measured_at}"
                raise BadFile(str(path), f"profiles.{place}.measured_at: {problem}")
        return self._add(profiles)

    def remove(self, keys: Iterable[ProfileKey]) -> int:
        """Forget everything of these keys; returns how many keys were known. NotWritable."""
        removed = 0
        for key in keys:
            with disk_errors(self._folder):
                file = self._file(key)
                removed += file.exists()
                file.unlink(missing_ok=True)
        return removed

    def _add(self, profiles: Iterable[Profile]) -> int:
        added = 0
        by_key: dict[ProfileKey, list[Profile]] = {}
        for profile in profiles:
            by_key.setdefault(profile.key, []).append(profile)
        with locked(self._folder / _LOCK, lambda: None), disk_errors(self._folder):
            for key, new in by_key.items():
                known = self._read(self._file(key))
                kept = _kept((*known, *new))
                added += len(set(kept) - set(known))
                if kept != known:
                    write_atomically(self._file(key), to_text(kept).encode())
        return added

    def _file(self, key: ProfileKey) -> Path:
        text = json.dumps(asdict(key), sort_keys=True)
        return self._folder / f"{hashlib.sha256(text.encode()).hexdigest()[:32]}.json"

    def _read(self, file: Path) -> tuple[Profile, ...]:
        try:
            return _sorted(p for p in read_file(file) if self._file(p.key) == file)
        except FileNotFoundError:
            return ()
        except BadFile as error:
            _log.warning("ignored %s", fields(profiles=error.path, problem=error.problem))
            return ()


def _sorted(profiles: Iterable[Profile]) -> tuple[Profile, ...]:
    return tuple(sorted(profiles, key=lambda profile: profile.measured_at, reverse=True))


def _worth(profile: Profile) -> tuple[bool, bool, float]:
    says_what_was_left = profile.available_kv_bytes is not None
    is_ready = profile.outcome == "ready"
    return (is_ready and says_what_was_left, is_ready or says_what_was_left, profile.measured_at)


def _kept(profiles: Iterable[Profile]) -> tuple[Profile, ...]:
    """The newest of one key, and always the most telling of all."""
    newest = _sorted(set(profiles))
    kept, best = newest[:_MOST_OF_A_KEY], max(newest, key=_worth)
    return kept if best in kept else (*kept[:-1], best)
