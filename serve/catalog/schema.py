"""The shape of a catalog file. Unknown keys are refused; what may be left out has a default."""

from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

from serve.catalog.spec import License

Words = Annotated[str, Field(min_length=1)]
# YAML reads a bare yes and no as true and false.
Permission = Annotated[
    Literal["yes", "no", "conditions", "unknown"],
    BeforeValidator(lambda v: {True: "yes", False: "no"}[v] if isinstance(v, bool) else v),
]
Value = Annotated[str | int | float | bool, Field(union_mode="smart")]


class _Entry(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class LicenseEntry(_Entry):
    """A licence that entries name by its key."""

    name: Words
    commercial: Permission
    note: str = ""

    def license(self) -> License:
        return License(self.name, self.commercial, self.note)


class WheelEntry(_Entry):
    """A GGUF file (`member`) inside a wheel on PyPI; `sha256` is the whole wheel's."""

    package: Words
    version: Words
    sha256: Annotated[str, Field(pattern="^[0-9a-f]{64}$")]
    member: Words


class Defaults(_Entry):
    """What an entry may take from its family. An entry's own value wins, even where it is null."""

    architecture: Words | None = None
    license: Words | None = None
    context: Annotated[int, Field(ge=16)] | None = None
    parameters: Words | None = None
    tool_call_parser: Words | None = None
    reasoning_parser: Words | None = None
    engine_args: dict[str, Value] = {}
    summary: str = ""


class ModelEntry(Defaults):
    """One model, from exactly one of `repo`, `wheel`, `dir`; `variants`: suffix → repository."""

    family: Words
    repo: Annotated[str, Field(pattern=r"^[\w.-]+/[\w.-]+$")] | None = None
    revision: Words = "main"
    wheel: WheelEntry | None = None
    dir: Annotated[Path, Field(strict=False)] | None = None
    aliases: Annotated[list[str], Field(strict=True)] = []
    variants: dict[str, Annotated[str, Field(pattern=r"^[\w.-]+/[\w.-]+$")]] = {}


class CatalogFile(_Entry):
    """A whole file; `models` entries by name."""

    licenses: dict[str, LicenseEntry] = {}
    families: dict[str, Defaults] = {}
    models: dict[str, ModelEntry] = {}


_OWNERS: dict[str, type[BaseModel]] = {
    "licenses": LicenseEntry,
    "families": Defaults,
    "models": ModelEntry,
}


def known_keys(path: tuple[str, ...]) -> list[str]:
    """The keys that may stand where the last one of this key path stands."""
    if len(path) == 1:
        return sorted(CatalogFile.model_fields)
    return sorted((_OWNERS[path[0]] if len(path) == 3 else WheelEntry).model_fields)
