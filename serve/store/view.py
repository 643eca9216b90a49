"""The folder that an engine gets: links to exactly the verified files, and nothing else.

Other tools put what they like into a snapshot of the Hub's cache, Python too. A view has none of
that, and the settings in it name no Python unless it is approved (`approval.py`). It is looked at
before each load, and made anew if anything about it is not as it was made.
"""

import hashlib
import os
from collections.abc import Iterator, Mapping
from pathlib import Path

from serve.disk import disk_errors, remove_tree
from serve.errors import WeightsDamaged
from serve.store import approval, content
from serve.store.manifest import Manifest, slug
from serve.store.paths import check_inside, link_home

# A view's path → where its link leads, or what is written there.
_Content = Mapping[str, Path | bytes]


def folder_of(home: Path, found: Manifest) -> Path:
    """Where the view of these weights lies, once `make` has made it."""
    return _views(home) / f"{slug(found.name)}--{found.digest[:12]}"


def make(home: Path, found: Manifest, remote_code: str | None) -> Path:
    """Have the view, as it must be now. The caller alone uses this model's name.

    Raises UnsafeWeights (a link out of the model's folder, Python that is not approved),
    WeightsDamaged, DiskFull, NotWritable.
    """
    view, wanted = folder_of(home, found), _wanted(found, remote_code)
    if _is_as(view, wanted):
        return view
    part, old = (view.with_name(f".{kind}--{view.name}") for kind in ("part", "old"))
    with disk_errors(view.parent):
        try:
            remove_tree(part)
            remove_tree(old)
            _write(part, wanted)
            if view.is_symlink() or view.exists():
                view.rename(old)
            part.rename(view)
        finally:
            remove_tree(part)
            remove_tree(old)
    return view


def is_made(home: Path, found: Manifest, remote_code: str | None) -> bool:
    """Whether the view is there as it must be. Raises as `make`."""
    return _is_as(folder_of(home, found), _wanted(found, remote_code))


def remove(home: Path, found: Manifest) -> None:
    """Remove the view, if there is one."""
    with disk_errors(_views(home)):
        remove_tree(folder_of(home, found))


def _write(view: Path, wanted: _Content) -> None:
    view.mkdir(parents=True)
    for path, source in wanted.items():
        (view / path).parent.mkdir(parents=True, exist_ok=True)
        if isinstance(source, bytes):
            (view / path).write_bytes(source)
        else:
            (view / path).symlink_to(source)


def _views(home: Path) -> Path:
    return home / "views"


def _wanted(found: Manifest, remote_code: str | None) -> _Content:
    approval.check_held(found, remote_code)
    code = remote_code == found.revision
    home, wanted = link_home(found.path), dict[str, Path | bytes]()
    for record in found.files:
        if not content.is_loadable(record.path, code):
            continue
        real = wanted[record.path] = check_inside(found.path, record.path, home)
        if record.path in approval.SETTINGS and not code:
            text = real.read_bytes()
            actual = hashlib.sha256(text).hexdigest()
            if actual != record.sha256:
                raise WeightsDamaged(found.name, record.path, record.sha256, actual)
            if (plain := approval.without_code(text, record.path)) != text:
                wanted[record.path] = plain
    return wanted


def _is_as(view: Path, wanted: _Content) -> bool:
    return not view.is_symlink() and dict(_present(view)) == wanted


def _present(view: Path) -> Iterator[tuple[str, Path | bytes]]:
    for place, folders, files in os.walk(view):
        for name in (*files, *(name for name in folders if (Path(place) / name).is_symlink())):
            file = Path(place) / name
            source = file.readlink() if file.is_symlink() else file.read_bytes()
            yield file.relative_to(view).as_posix(), source
