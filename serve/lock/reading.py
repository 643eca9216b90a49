"""A lock's text → locked models, or a refusal that names the place and the problem."""

import json
from collections.abc import Iterable
from pathlib import Path, PurePosixPath
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from serve.errors import BadFile
from serve.lock.model import FORMAT, LockedFile, LockedModel, digest_of
from serve.sources import Kind

_Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
_Words = Annotated[str, Field(min_length=1, max_length=1000)]


class _Shape(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


class _File(_Shape):
    size: Annotated[int, Field(ge=0)]
    sha256: _Sha256


class _Model(_Shape):
    kind: Kind
    source: _Words
    revision: Annotated[str, Field(pattern=r"^([0-9a-f]{40}|[0-9a-f]{64})$")]
    license: str
    entry: _Sha256
    digest: _Sha256
    files: Annotated[dict[str, _File], Field(min_length=1)]


class _LockFile(_Shape):
    format: Literal[1]
    models: dict[_Words, _Model]


def models_in(path: Path, text: str) -> tuple[LockedModel, ...]:
    """What is locked; BadFile if the text is no lock, or does not agree with itself."""
    try:
        record = json.loads(text, object_pairs_hook=_without_twins)
    except json.JSONDecodeError as error:
        raise BadFile(str(path), f"is not JSON: line {error.lineno}: {error.msg}") from error
    except (ValueError, RecursionError) as error:
        raise BadFile(str(path), str(error)) from error
    return tuple(_models(path, _parsed(path, record)))


def _without_twins(pairs: Iterable[tuple[str, Any]]) -> dict[str, Any]:
    """An object; JSON allows a key twice, and readers disagree on which one counts."""
    found: dict[str, Any] = {}
    for key, value in pairs:
        if key in found:
            raise ValueError(f"names something twice: {key!r}")
        found[key] = value
    return found


def _parsed(path: Path, record: Any) -> _LockFile:
    given = record.get("format") if isinstance(record, dict) else None
    if given is not None and given != FORMAT:
        raise BadFile(str(path), f"is of a format that is unknown here: {given!r}")
    try:
        return _LockFile.model_validate(record)
    except ValidationError as error:
        first = error.errors(include_url=False, include_context=False)[0]
        place = ".".join(str(part) for part in first["loc"])
        problem = f"{first['msg']}: {first['input']!r:.80}"
        raise BadFile(str(path), f"{place}: {problem}" if place else problem) from error


def _models(path: Path, shape: _LockFile) -> Iterable[LockedModel]:
    for name, model in shape.models.items():
        files = tuple(
            LockedFile(file_path, file.size, file.sha256)
            for file_path, file in sorted(model.files.items())
        )
        place = f"models.{name}"
        for file in files:
            if not _stays_inside(file.path):
                raise BadFile(str(path), f"{place}: a path that is none: {file.path!r:.80}")
        if digest_of(files) != model.digest:
            raise BadFile(str(path), f"{place}: the digest is not that of its files")
        yield LockedModel(
            name, model.kind, model.source, model.revision, model.license, model.entry,
            model.digest, files,
        )  # fmt: skip


def _stays_inside(path: str) -> bool:
    """Whether the path is below a model's folder, and its own only spelling."""
    parts = PurePosixPath(path).parts
    is_plain = path.isprintable() and "\\" not in path and len(path) <= 1000
    is_own = path != "" and "/".join(parts) == path
    return is_plain and is_own and not {"/", ".", ".."} & set(parts)
