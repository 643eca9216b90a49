"""The one reader of the environment and of `inhouse.yaml`.

A setting's value comes from the first of: flag, environment, `inhouse.yaml`, default.
"""

import difflib
from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import yaml

from serve.errors import SettingsError
from serve.settings.groups import GROUPS, Setting, Settings, table
from serve.settings.kinds import Wrong
from serve.settings.sections import SECTIONS, read_sections

CONFIG_VARIABLE = "INHOUSE_CONFIG"


def without_secrets(environ: Mapping[str, str]) -> dict[str, str]:
    """The environment for children: what only we need, they do not find there."""
    secret = {setting.variable for setting in table() if setting.kind.is_secret}
    return {name: value for name, value in environ.items() if name not in secret}


def load(
    flags: Mapping[str, Any], environ: Mapping[str, str], file: Path | None = None
) -> Settings:
    """Merge flags (key → value, None = not given), environment and file; SettingsError if bad.

    `file` None: `$INHOUSE_CONFIG`, else `./inhouse.yaml` where it is there, else none.
    Paths become absolute, seen from the working folder; `~` is the home folder.
    """
    known = {setting.key for setting in table()}
    values: dict[str, Any] = {}
    places: dict[str, str] = {}

    def put(key: str, value: Any, place: str) -> None:
        if value is not None:
            values[key], places[key] = value, place

    for key, default in _default_paths(environ).items():
        put(key, default, "default")
    path = _config_file(file, environ)
    content = _read_yaml(path) if path is not None else {}
    for key, value in _flat(content, str(path)).items():
        put(key, value, str(path))
    _refuse_unknown_variables(environ)
    for setting in table():
        text = environ.get(setting.variable, "")
        if text != "":
            put(setting.key, _from_text(setting, text), f"environment {setting.variable}")
    for key, value in flags.items():
        _check_key(f"flag {key}", key, known)
        put(key, value, f"flag {key}")
    made = _made({key: _at_home(value, environ) for key, value in values.items()}, places)
    return replace(made, **read_sections(content, str(path)))


def _made(values: Mapping[str, Any], places: Mapping[str, str]) -> Settings:
    """In the table's order: of several bad values the first one is named."""
    groups: dict[str, dict[str, Any]] = {name: {} for name in GROUPS}
    for setting in table():
        if setting.key in values:
            group, name = setting.key.split(".")
            groups[group][name] = _read(setting, values[setting.key], places[setting.key])
    return Settings(**{name: GROUPS[name](**given) for name, given in groups.items()})


def _read(setting: Setting, value: Any, place: str) -> Any:
    try:
        return setting.kind.read(value)
    except Wrong as wrong:
        key = setting.key if wrong.item is None else f"{setting.key}.{wrong.item}"
        shown = "" if wrong.is_told or setting.kind.is_secret else f": {wrong.value!r}"
        raise SettingsError(place, key, wrong.problem + shown) from None


def _default_paths(environ: Mapping[str, str]) -> dict[str, Path]:
    home = _home(environ)
    data = Path(environ.get("XDG_DATA_HOME") or home / ".local" / "share")
    cache = Path(environ.get("XDG_CACHE_HOME") or home / ".cache")
    own = Path(environ.get("INHOUSE_HOME") or data / "inhouse")
    runtime = environ.get("XDG_RUNTIME_DIR")
    return {
        "paths.home": own,
        # Without XDG_RUNTIME_DIR (root, cron, containers) the sockets lie beside what they serve.
        "paths.run": Path(runtime) / "inhouse" if runtime else own / "run",
        "hub.home": cache / "huggingface",
    }


def _config_file(file: Path | None, environ: Mapping[str, str]) -> Path | None:
    named = file or (Path(environ[CONFIG_VARIABLE]) if environ.get(CONFIG_VARIABLE) else None)
    if named is not None:
        return named
    usual = Path("inhouse.yaml")
    return usual if usual.exists() else None


def _flat(content: Any, place: str) -> dict[str, Any]:
    flat: dict[str, Any] = {}
    known = [setting.key for setting in table()]
    if not isinstance(content, dict):
        raise SettingsError(place, "", "must be a mapping of groups")
    for group, entries in content.items():
        _check_key(place, f"{group}", (*GROUPS, *SECTIONS))
        if not isinstance(entries, dict | None):
            raise SettingsError(place, f"{group}", "must be a mapping")
        for name, value in ({} if group in SECTIONS else entries or {}).items():
            _check_key(place, f"{group}.{name}", known)
            flat[f"{group}.{name}"] = _word(value)
    return flat


def _read_yaml(path: Path) -> Any:
    try:
        return yaml.safe_load(path.read_text(encoding="utf-8")) or {}
    except OSError as error:
        raise SettingsError(str(path), "", f"cannot be read: {error.strerror}") from error
    except yaml.MarkedYAMLError as error:
        # `from None`, and not its own words: they quote the line, which may hold a key.
        line = error.problem_mark.line + 1 if error.problem_mark else 1
        raise SettingsError(str(path), "", f"is not YAML: line {line}: {error.problem}") from None
    except (yaml.YAMLError, ValueError) as error:
        raise SettingsError(str(path), "", f"is not YAML: {type(error).__name__}") from None


def _word(value: Any) -> Any:
    """YAML reads `off` as false. No setting is a truth value, so it is meant as the word."""
    return {False: "off", True: "on"}[value] if isinstance(value, bool) else value


def _check_key(place: str, key: str, known: Iterable[str]) -> None:
    if key not in known:
        near = difflib.get_close_matches(key, known, n=1)
        raise SettingsError(place, key, "is not a setting", near[0] if near else None)


def _refuse_unknown_variables(environ: Mapping[str, str]) -> None:
    known = [setting.variable for setting in table()] + [CONFIG_VARIABLE]
    for name in environ:
        if name.startswith("INHOUSE_") and name not in known:
            near = difflib.get_close_matches(name, known, n=1)
            raise SettingsError("environment", name, "is not a setting", near[0] if near else None)


def _from_text(setting: Setting, text: str) -> Any:
    """Lists are written with commas in the environment."""
    if isinstance(setting.default, tuple):
        return tuple(part.strip() for part in text.split(","))
    return text


def _at_home(value: Any, environ: Mapping[str, str]) -> Any:
    """`~/models` as a shell reads it."""
    is_at_home = isinstance(value, str) and value.startswith("~/")
    return f"{_home(environ)}{value[1:]}" if is_at_home else value


def _home(environ: Mapping[str, str]) -> Path:
    return Path(environ.get("HOME") or Path.home())
