"""$INHOUSE_HOME/weights: what came from elsewhere than the Hub, and what dead runs left there."""

import re
from collections.abc import Callable, Collection
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path

from serve.disk import disk_errors, remove_tree

# `pull`: a download that the next pull continues; it is not swept, and when nobody comes,
# `leftovers` removes it. `stem`: whole weights.
SHELVED = re.compile(r"\.part--(?P<part>.+)|\.pull--(?P<pull>.+)|(?P<stem>.+)--[0-9a-f]{12}")


def sweep(
    shelf: Path,
    own: str,
    sealed: Callable[[], Collection[Path]],
    owned: Callable[[str], AbstractContextManager[bool]],
) -> None:
    """Remove what has no seal and no owner. `own`: the model whose lock the caller has. `sealed`:
    the folders that have a seal; `owned(stem)` holds a model's lock if it is free, and says so."""
    if not shelf.is_dir():
        return
    for path in shelf.iterdir():
        match = SHELVED.fullmatch(path.name)
        stem = match and (match["part"] or match["stem"])
        if not stem:
            continue
        lock = nullcontext(True) if stem == own else owned(stem)
        with lock as is_ours, disk_errors(path):
            if is_ours and path not in sealed():
                remove_tree(path)
