"""The sections of `inhouse.yaml` that are not single settings: `models` and `tenants`.

models:
  qwen3-8b:
    replicas: 2
    price: {input: 0.27, cached_input: 0.07, output: 1.10}   # per million tokens
    limits: {rpm: 600, tpm: 2M, concurrency: 32}
  theirs:
    url: [http://10.0.0.5:30000, unix:/run/other.sock]
    model: Qwen/Qwen3-32B                                      # its name there
    context: 32k
tenants:
  research: {weight: 2, limits: {budget_per_month: 500}}
"""

import difflib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from serve.errors import SettingsError
from serve.quota import NANOS, Limits, Price, Tenant
from serve.settings.kinds import PLACE, TEXT, Kind, Wrong, many, number, one_of, whole
from serve.units import parse_tokens

SECTIONS = ("models", "tenants")
_TOKENS_A_PRICE = 10**6  # prices are per million tokens


@dataclass(frozen=True, slots=True)
class ModelTerms:
    """On which terms a model is served. `urls` empty: by engines of ours, `replicas` of them.

    `urls`: servers that somebody else runs, `unix:/path` or `http(s)://host:port`. `upstream`: the
    model's name there. `key_file`: holds what they want as `Authorization: Bearer`. `slots`:
    requests that one replica works on at once, 0: as many as come. `takes_salt`: they know
    `cache_salt`.
    """

    name: str
    urls: tuple[str, ...] = ()
    upstream: str = ""
    key_file: Path | None = None
    context_tokens: int = 0
    aliases: tuple[str, ...] = ()
    replicas: int = 1
    routing: str = "prefix"
    slots: int = 0
    takes_salt: bool = True
    price: Price = Price()
    limits: Limits = Limits()


def read_sections(content: Mapping[str, Any], place: str) -> dict[str, Any]:
    """`models` and `tenants` as `Settings` has them. SettingsError names place, key and value."""
    models = _entries(content, "models", place)
    tenants = _entries(content, "tenants", place)
    return {
        "models": tuple(_model(name, entry, place) for name, entry in models.items()),
        "tenants": tuple(
            Tenant(name, **_fields(entry, _TENANT, place, f"tenants.{name}"))
            for name, entry in tenants.items()
        ),
    }


def _model(name: str, entry: Any, place: str) -> ModelTerms:
    key = f"models.{name}"
    terms = ModelTerms(name, **_fields(entry, _MODEL, place, key))
    if terms.urls and terms.replicas != 1:
        raise SettingsError(place, f"{key}.replicas", "is for engines of ours: name more URLs")
    for foreign in ("upstream", "key_file", "context_tokens", "aliases"):
        if not terms.urls and getattr(terms, foreign):
            written = next(word for word, (field, _) in _MODEL.items() if field == foreign)
            raise SettingsError(place, f"{key}.{written}", "is for a model that has a url")
    return terms


def _entries(content: Mapping[str, Any], section: str, place: str) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, entry in (content.get(section) or {}).items():
        if not isinstance(name, str) or not isinstance(entry, dict | None):
            raise SettingsError(place, f"{section}.{name}", "must be a name and a mapping")
        found[name] = entry or {}
    return found


def _fields(
    entry: Any, known: Mapping[str, tuple[str, Kind]], place: str, key: str
) -> dict[str, Any]:
    made = {}
    for word, value in entry.items():
        if word not in known:
            near = difflib.get_close_matches(str(word), known, n=1)
            raise SettingsError(
                place, f"{key}.{word}", "is not a setting", f"{key}.{near[0]}" if near else None
            )
        field, kind = known[word]
        try:
            made[field] = kind.read(value)
        except Wrong as wrong:
            shown = "" if wrong.is_told else f": {wrong.value!r}"
            raise SettingsError(place, f"{key}.{word}", wrong.problem + shown) from None
    return made


def _url(value: Any) -> str:
    text: str = TEXT.read(value)
    parts = urlsplit(text)
    try:
        is_there = parts.scheme in ("http", "https") and parts.hostname and parts.port != 0
    except ValueError:
        is_there = False
    is_bare = not (parts.query or parts.fragment or parts.username) and parts.path in ("", "/")
    if text.startswith("unix:/") or (is_there and is_bare):
        return text.rstrip("/")
    raise Wrong("must be unix:/path, http://host:port or https://host:port", value)


def _urls(value: Any) -> tuple[str, ...]:
    return tuple(_url(each) for each in (value if isinstance(value, list) else [value]))


def _truth(value: Any) -> bool:
    if not isinstance(value, bool):
        raise Wrong("must be on or off", value)
    return value


def _money(value: Any) -> int:
    return round(float(number(0).read(value)) * NANOS)


def _per_token(value: Any) -> int:
    return round(float(number(0).read(value)) * NANOS / _TOKENS_A_PRICE)


def _mapping(known: Mapping[str, tuple[str, Kind]], make: Callable[..., Any]) -> Kind:
    def read(value: Any) -> Any:
        if not isinstance(value, dict):
            raise Wrong("must be a mapping", value)
        for word in value:
            if word not in known:
                raise Wrong(f"has no {word!r}; it has {', '.join(known)}", word, is_told=True)
        return make(**{known[word][0]: known[word][1].read(each) for word, each in value.items()})

    return Kind(read)


def _price(input: int = 0, cached_input: int | None = None, output: int = 0) -> Price:
    """Without a price of its own, what was cached costs what is fresh."""
    return Price(input, input if cached_input is None else cached_input, output)


def _parse_count(text: str) -> int:
    """`600`, `20k`, `2M`: thousands and millions, not powers of two as for a context."""
    scale = {"k": 10**3, "m": 10**6}.get(text.strip()[-1:].lower(), 1)
    try:
        return round(float(text.strip().rstrip("kKmM")) * scale)
    except (ValueError, OverflowError):
        raise ValueError(f"not a count: {text!r}") from None


_TOKENS = whole(1, parse=parse_tokens)
_COUNT = whole(1, parse=_parse_count)
_LIMITS = _mapping(
    {field.name: (field.name, _COUNT) for field in fields(Limits) if "nanos" not in field.name}
    | {"budget_per_day": ("nanos_per_day", Kind(_money))}
    | {"budget_per_month": ("nanos_per_month", Kind(_money))},
    Limits,
)
_PRICE = _mapping({field.name: (field.name, Kind(_per_token)) for field in fields(Price)}, _price)
_TENANT = {"weight": ("weight", whole(1, 1000)), "limits": ("limits", _LIMITS)}
_MODEL = {
    "url": ("urls", Kind(_urls)),
    "model": ("upstream", TEXT),
    "key_file": ("key_file", PLACE),
    "context": ("context_tokens", _TOKENS),
    "aliases": ("aliases", many(TEXT)),
    "replicas": ("replicas", whole(1, 64)),
    "routing": ("routing", one_of("prefix", "least-load", "round-robin")),
    "slots": ("slots", whole(0)),
    "cache_salt": ("takes_salt", Kind(_truth)),
    "price": ("price", _PRICE),
    "limits": ("limits", _LIMITS),
}
