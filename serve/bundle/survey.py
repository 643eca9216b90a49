"""Several parts looked at together: what each is, and whether they belong to one bundle."""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from serve.bundle.form import Form
from serve.bundle.part import Head, Torn, opened
from serve.errors import BadFile

_NUMBERED = re.compile(r"(?P<stem>.+)\.\d{3,}")


@dataclass(frozen=True, slots=True)
class Survey:
    """`heads`: of the parts that can be used, at least in part. `problems`: what is wrong with
    others, and with parts that end too early."""

    heads: tuple[Head, ...]
    problems: tuple[BadFile, ...]


def survey(paths: Iterable[Path]) -> Survey:
    """Look at every part's head and length. BadFile if they are parts of different bundles."""
    known: dict[str, Form] = {}
    heads, problems = [], []
    for path in dict.fromkeys(paths):
        try:
            with opened(path, known) as part:
                if known and part.head.id not in known:
                    raise BadFile(str(path), "is a part of another bundle than the ones before it")
                known[part.head.id] = part.head.form
                part.check_length()
                heads.append(part.head)
                part.check_end()
        except Torn as error:
            problems.append(BadFile(str(path), str(error)))
        except BadFile as error:
            problems.append(error)
    return Survey(tuple(heads), tuple(problems))


def stem_of(path: Path) -> str:
    """What a bundle is called, without the number of a part."""
    match = _NUMBERED.fullmatch(path.name)
    return match["stem"] if match else path.name


def parts_beside(path: Path) -> list[Path]:
    """All parts of the bundle of which this is one, as far as they lie beside it."""
    match = _NUMBERED.fullmatch(path.name)
    if match is None:
        return [path]
    beside = (other for other in path.parent.iterdir() if stem_of(other) == match["stem"])
    return sorted(other for other in beside if other.name != match["stem"])
