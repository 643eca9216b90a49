"""The manifest of a bundle: which models, which files, which pieces, in which part. See
docs/bundles.md.

It is canonical JSON: sorted keys, no spaces, ASCII. Its sha256 is the bundle's id, so that every
part that repeats it says of which bundle it is, and a signature of it covers every byte.
"""

import hashlib
import json
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass, replace
from typing import Annotated, ClassVar, Literal

from pydantic import AfterValidator, ConfigDict, Field, TypeAdapter, ValidationError

from serve.sources import Kind

FORMAT = 1
PIECE_BYTES = 16 * 2**20
MAX_MANIFEST_BYTES = 64 * 2**20
# git's ids are made of whole files in memory; the Hub keeps what is larger than 10 MiB in LFS.
_MAX_GIT_BYTES = 64 * 2**20
_MAX_BYTES = 2**53
_STRICT = ConfigDict(extra="forbid", strict=True)

Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
Oid = Annotated[str, Field(pattern=r"^([0-9a-f]{40}|[0-9a-f]{64})$")]
Count = Annotated[int, Field(ge=0, lt=_MAX_BYTES)]


def _shown(text: str) -> str:
    """Texts reach terminals and logs: no control signs, nothing that turns the line around."""
    if not text.isprintable():
        raise ValueError("signs that cannot be printed")
    return text


Text = Annotated[str, Field(max_length=1000), AfterValidator(_shown)]
Name = Annotated[
    str, Field(max_length=200, pattern=r"^[a-z0-9][a-z0-9._-]*(:[a-z0-9][a-z0-9._-]*)?$")
]  # a catalog's
_PART = r"[A-Za-z0-9_][A-Za-z0-9_.+ -]{0,254}"
FilePath = Annotated[str, Field(max_length=1000, pattern=rf"^{_PART}(/{_PART})*$")]


class BadManifest(ValueError):
    """The manifest is none of ours, or contradicts itself; the text says why."""


@dataclass(frozen=True, slots=True)
class Facts:
    """What the exporting catalog knew of the model, for people and the importing policy.

    Never flags for vLLM: who runs the model decides on those.
    """

    __pydantic_config__: ClassVar[ConfigDict] = _STRICT

    family: Text
    architecture: Text
    context_tokens: Annotated[int, Field(ge=1, lt=2**40)]
    parameters: Text
    commercial: Literal["yes", "no", "conditions", "unknown"]
    license_note: Text = ""
    summary: Text = ""


@dataclass(frozen=True, slots=True)
class BundledFile:
    """One file of a model; its bytes are those of the content with the same sha256."""

    __pydantic_config__: ClassVar[ConfigDict] = _STRICT

    path: FilePath
    size: Count
    sha256: Sha256
    oid: Oid | None = None


@dataclass(frozen=True, slots=True)
class BundledModel:
    """One model, in the words of the exporting store's seal; `entry` is the digest of the catalog
    entry there."""

    __pydantic_config__: ClassVar[ConfigDict] = _STRICT

    name: Name
    kind: Kind
    source: Text
    asked: Text
    revision: Oid
    license: Text
    entry: Sha256
    digest: Sha256
    facts: Facts
    files: tuple[BundledFile, ...]

    @property
    def total_bytes(self) -> int:
        return sum(file.size for file in self.files)


@dataclass(frozen=True, slots=True)
class Content:
    """What one or several files hold: cut into pieces of equal size, the last one what is left."""

    __pydantic_config__: ClassVar[ConfigDict] = _STRICT

    sha256: Sha256
    size: Count
    pieces: tuple[Sha256, ...]


@dataclass(frozen=True, slots=True)
class Piece:
    """One piece, as it is numbered through the bundle."""

    number: int
    sha256: str
    size: int
    content: str  # the sha256 of the content that it belongs to
    offset: int  # where in it


@dataclass(frozen=True, slots=True)
class Form:
    """A whole manifest. `parts`: how many pieces each part holds, in order."""

    __pydantic_config__: ClassVar[ConfigDict] = _STRICT

    format: Literal[1]
    producer: Text
    created_at: Annotated[int, Field(ge=0, lt=2**33)]  # as any calendar can show it
    piece_bytes: Annotated[int, Field(ge=4096, le=64 * 2**20)]
    models: tuple[BundledModel, ...]
    contents: tuple[Content, ...]
    parts: tuple[Count, ...]

    @property
    def total_bytes(self) -> int:
        """The bytes of all pieces."""
        return sum(content.size for content in self.contents)

    def pieces(self) -> Iterator[Piece]:
        """All pieces, in order."""
        number = 0
        for content in self.contents:
            for at, sha256 in enumerate(content.pieces):
                offset = at * self.piece_bytes
                size = min(self.piece_bytes, content.size - offset)
                yield Piece(number, sha256, size, content.sha256, offset)
                number += 1

    def with_pieces(self, hashes: Iterable[str]) -> "Form":
        """The same with these hashes of all pieces, in order."""
        found = iter(hashes)
        return replace(self, contents=tuple(
            replace(content, pieces=tuple(next(found) for _ in content.pieces))
            for content in self.contents
        ))  # fmt: skip


_ADAPTER = TypeAdapter(Form)


def contents_of(models: Iterable[BundledModel], piece_bytes: int) -> tuple[Content, ...]:
    """Every content once, in the order of the files, its pieces not hashed yet."""
    sizes = {file.sha256: file.size for model in models for file in model.files}
    blank = "0" * 64
    return tuple(
        Content(sha256, size, (blank,) * -(-size // piece_bytes)) for sha256, size in sizes.items()
    )


def to_bytes(form: Form) -> bytes:
    """The form as it is written, hashed and signed."""
    return canonical(asdict(form))


def canonical(record: object) -> bytes:
    """The one way to write a record."""
    return json.dumps(record, sort_keys=True, separators=(",", ":")).encode("ascii")


def id_of(manifest: bytes) -> str:
    """The bundle's id."""
    return hashlib.sha256(manifest).hexdigest()


def parse(manifest: bytes) -> Form:
    """The form in these bytes, which must be the canonical ones; BadManifest."""
    try:
        record = json.loads(manifest)
    except (ValueError, RecursionError) as error:
        raise BadManifest("its manifest is not JSON") from error
    found = record.get("format") if isinstance(record, dict) else None
    if found != FORMAT:
        raise BadManifest(f"its format is {str(found)[:40]!r}; known here: {FORMAT}")
    try:
        form = _ADAPTER.validate_json(manifest)
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(str(part) for part in first["loc"])
        raise BadManifest(f"its manifest is wrong: {key}: {first['msg']}") from error
    if to_bytes(form) != manifest:
        raise BadManifest("its manifest is not written in the canonical way")
    _check(form)
    return form


def _check(form: Form) -> None:
    """BadManifest unless all that is said twice is said the same way."""
    sizes = {content.sha256: content.size for content in form.contents}
    _require_unique("content", (content.sha256 for content in form.contents))
    _require_unique("model", (model.name for model in form.models))
    if not form.models:
        raise BadManifest("it holds no model")
    for content in form.contents:
        if len(content.pieces) != -(-content.size // form.piece_bytes):
            raise BadManifest(f"the content {content.sha256} has a wrong number of pieces")
    for model in form.models:
        _check_model(model, sizes)
    used = {file.sha256 for model in form.models for file in model.files}
    if used != set(sizes):
        raise BadManifest("a content belongs to no file")
    n_pieces = sum(len(content.pieces) for content in form.contents)
    if not form.parts or sum(form.parts) != n_pieces or (0 in form.parts and n_pieces):
        raise BadManifest("its pieces are spread over its parts in an impossible way")


def _check_model(model: BundledModel, sizes: dict[str, int]) -> None:
    _require_unique("path, case apart,", (file.path for file in model.files), str.casefold)
    if not model.files:
        raise BadManifest(f"{model.name} has no files")
    paths = {file.path.casefold() for file in model.files}
    for file in model.files:
        if sizes.get(file.sha256) != file.size:
            raise BadManifest(f"{model.name}: {file.path} has no content of its size")
        above = file.path.casefold().split("/")[:-1]
        if any("/".join(above[: n + 1]) in paths for n in range(len(above))):
            raise BadManifest(f"{model.name}: {file.path} lies in what is a file too")
        if file.oid and len(file.oid) == 64 and file.oid != file.sha256:
            raise BadManifest(f"{model.name}: {file.path} has two different sha256")
        if file.oid and len(file.oid) == 40 and file.size > _MAX_GIT_BYTES:
            raise BadManifest(f"{model.name}: {file.path} is too large for a git blob")
        if model.kind == "hf" and file.oid is None:
            raise BadManifest(f"{model.name}: {file.path} has no id of the Hub's")
    if model.kind == "hf" and len(model.revision) != 40:
        raise BadManifest(f"{model.name}: its revision is no commit")


def _require_unique(
    what: str, values: Iterable[str], key: Callable[[str], str] = lambda value: value
) -> None:
    seen: set[str] = set()
    for value in values:
        if key(value) in seen:
            raise BadManifest(f"the same {what} twice: {value}")
        seen.add(key(value))
