"""The shape of a catalog file. Unknown keys are refused; what may be left out has a default.

`docs/models.schema.json` is made from these classes (serve/catalog/published.py).
"""

from pathlib import Path
from typing import Annotated, Literal, get_args

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    WithJsonSchema,
    model_validator,
)

from serve.catalog.rules import (
    LANGUAGE,
    NAME,
    REMOTE_CODE,
    REPO,
    REPO_OR_ORGANISATION,
    SHA256,
    SHORTEST_CONTEXT,
    license_problem,
    source_problem,
)

_PERMISSIONS = Literal["yes", "no", "conditions", "unknown"]

Words = Annotated[str, Field(min_length=1)]
# YAML reads a bare yes and no as true and false.
Permission = Annotated[
    _PERMISSIONS,
    BeforeValidator(lambda v: {True: "yes", False: "no"}[v] if isinstance(v, bool) else v),
    WithJsonSchema({"enum": [*get_args(_PERMISSIONS), True, False]}),
]
Value = Annotated[str | int | float | bool, Field(union_mode="smart")]
Count = Annotated[int, Field(ge=1)]
Repo = Annotated[str, Field(pattern=REPO)]
RepoOrOrganisation = Annotated[str, Field(pattern=REPO_OR_ORGANISATION)]
Language = Annotated[str, Field(pattern=LANGUAGE)]
RemoteCode = Annotated[str, Field(pattern=REMOTE_CODE)]
Place = Annotated[Path, Field(strict=False)]


class _Entry(BaseModel):
    # Built when the first file is read: the command line imports this room for other verbs too.
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, defer_build=True)


class LicenseEntry(_Entry):
    """A licence that entries name by its key; `note`: the conditions, in a sentence."""

    name: Words
    commercial: Permission
    note: str = ""

    @model_validator(mode="after")
    def _says_its_conditions(self) -> "LicenseEntry":
        if problem := license_problem(self.commercial, self.note):
            raise ValueError(problem)
        return self


class WheelEntry(_Entry):
    """A GGUF file (`member`) inside a wheel on PyPI; `sha256` is the whole wheel's."""

    package: Words
    version: Words
    sha256: Annotated[str, Field(pattern=SHA256)]
    member: Words


class ExtensionEntry(_Entry):
    """A context longer than the model was made for: how, and what switches it on in vLLM.

    Without `engine_args` it cannot be switched on here; `{}`: the length alone does it.
    """

    context: Annotated[int, Field(ge=SHORTEST_CONTEXT)]
    how: Words
    engine_args: dict[str, Value] | None = None


class ToolTemplateEntry(_Entry):
    """A chat template of vLLM's examples without which there are no tools, and its parser."""

    file: Words
    parser: Words


class SamplingEntry(_Entry):
    """What the makers advise, by vLLM's names."""

    temperature: Annotated[float, Field(ge=0)] | None = None
    top_p: Annotated[float, Field(gt=0, le=1)] | None = None
    top_k: int | None = None
    min_p: Annotated[float, Field(ge=0, le=1)] | None = None
    repetition_penalty: Annotated[float, Field(gt=0)] | None = None
    presence_penalty: float | None = None


class GeometryEntry(_Entry):
    """Numbers of the published config.json."""

    layers: Count
    hidden: Count
    heads: Count
    vocab: Count
    kv_heads: Count | None = None
    head_dim: Count | None = None
    experts: Count | None = None
    experts_per_token: Count | None = None
    window: Count | None = None
    kv_lora_rank: Count | None = None
    q_lora_rank: Count | None = None
    rope_head_dim: Count | None = None
    nope_head_dim: Count | None = None
    value_head_dim: Count | None = None


class Defaults(_Entry):
    """What an entry may take from its family. An entry's own value wins, even where it is null."""

    architecture: Words | None = None
    license: Words | None = None
    context: Annotated[int, Field(ge=SHORTEST_CONTEXT)] | None = None
    extension: ExtensionEntry | None = None
    parameters: Words | None = None
    languages: list[Language] = []
    tool_call_parser: Words | None = None
    reasoning_parser: Words | None = None
    tool_template: ToolTemplateEntry | None = None
    sampling: SamplingEntry = SamplingEntry()
    sampling_without_thinking: SamplingEntry = SamplingEntry()
    engine_args: dict[str, Value] = {}
    remote_code: RemoteCode | None = None
    modelscope: RepoOrOrganisation | None = None
    summary: str = ""


class ModelEntry(Defaults):
    """One model, from exactly one of `repo`, `modelscope`, `wheel`, `dir`, `bundle`; `modelscope`
    may also stand beside `repo`. `variants`: suffix → repository."""

    family: Words
    repo: Repo | None = None
    revision: Words | None = None
    wheel: WheelEntry | None = None
    dir: Place | None = None
    bundle: Place | None = None
    aliases: list[Annotated[str, Field(pattern=NAME)]] = []
    variants: dict[str, Repo] = {}
    geometry: GeometryEntry | None = None
    weights_bytes: Count | None = None
    recommended: Count | None = None

    @model_validator(mode="after")
    def _has_one_source(self) -> "ModelEntry":
        if problem := source_problem(dict(self)):
            raise ValueError(problem)
        return self


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
_PARTS: dict[str, type[BaseModel]] = {
    "wheel": WheelEntry,
    "extension": ExtensionEntry,
    "tool_template": ToolTemplateEntry,
    "sampling": SamplingEntry,
    "sampling_without_thinking": SamplingEntry,
    "geometry": GeometryEntry,
}


def known_keys(path: tuple[str, ...]) -> list[str]:
    """The keys that may stand where the last one of this key path stands."""
    if len(path) == 1:
        return sorted(CatalogFile.model_fields)
    owner = _OWNERS[path[0]] if len(path) == 3 else _PARTS.get(path[2], CatalogFile)
    return sorted(owner.model_fields)
