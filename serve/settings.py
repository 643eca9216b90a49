"""The one table of settings, and the one reader of the environment and of `inhouse.yaml`.

A setting's value comes from the first of: flag, environment, `inhouse.yaml`, default. Its key is
its place below (`server.port`), its variable is `INHOUSE_SERVER_PORT`; a few have the name by
which the rest of the world knows them (`HF_TOKEN`).
"""

import difflib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, SecretStr, ValidationError

from serve.errors import SettingsError
from serve.units import parse_bytes, parse_seconds

Bytes = Annotated[int, BeforeValidator(lambda v: parse_bytes(v) if isinstance(v, str) else v), Field(ge=0)]
Seconds = Annotated[
    float, BeforeValidator(lambda v: parse_seconds(v) if isinstance(v, str) else v), Field(ge=0)
]


class _Group(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Paths(_Group):
    home: Path = Field(Path(), description="Where runtimes, weights, manifests and logs lie.")
    run: Path = Field(Path(), description="Where control.sock and the engines' sockets lie.")
    catalog: Path | None = Field(None, description="A catalog of your own, laid over models.yaml.")


class Server(_Group):
    models: tuple[str, ...] = Field((), description="Models to serve when none is named.")
    host: str = Field("127.0.0.1", description="Address to listen on.")
    port: int = Field(8000, ge=1, le=65535, description="Port to listen on.")
    api_key: SecretStr | None = Field(
        None, description="The key that clients must send; needed to listen beyond loopback."
    )
    gateways: int = Field(1, ge=1, le=64, description="Gateway processes that share the port.")
    max_body: Bytes = Field(32 * 2**20, description="Largest request body.")
    drain: Seconds = Field(30.0, description="How long a stop waits for running requests.")


class Engine(_Group):
    python: Path | None = Field(None, description="An interpreter that has vLLM already.")
    device: Literal["auto", "cpu", "cuda"] = Field("auto", description="What engines run on.")
    isolation: Literal["auto", "required", "off"] = Field(
        "auto", description="Engines without any network: where possible, or refuse to start."
    )
    spares: int | None = Field(
        None, ge=0, le=4, description="Hosts kept ready; default 1 with 8 GiB free memory, else 0."
    )
    compile: Literal["auto", "off"] = Field(
        "auto", description="On a CPU, prepare and use the model's compiled form."
    )
    context: int | None = Field(None, ge=16, description="Longest context in tokens.")
    kv_cache: Bytes | None = Field(None, description="Bytes for the KV cache on each device.")
    start_timeout: Seconds = Field(900.0, description="How long an engine may take to be ready.")
    grace: Seconds = Field(5.0, description="How long engines outlive a dead supervisor.")
    args: tuple[str, ...] = Field((), description="More flags for vLLM, as they are.")


class Hub(_Group):
    endpoint: str = Field("https://huggingface.co", description="The Hub, or a mirror of it.")
    token: SecretStr | None = Field(None, description="Token for gated and private repositories.")
    home: Path = Field(Path(), description="The Hub client's folder, shared with other tools.")


class Log(_Group):
    level: Literal["debug", "info", "warning", "error"] = Field("info", description="Least level.")


class Settings(_Group):
    """All settings of one run. Nobody below `cli/` reads the environment."""

    paths: Paths = Paths()
    server: Server = Server()
    engine: Engine = Engine()
    hub: Hub = Hub()
    log: Log = Log()


_OWN_VARIABLES = {
    "paths.home": "INHOUSE_HOME",
    "paths.run": "INHOUSE_RUN",
    "server.api_key": "INHOUSE_API_KEY",
    "hub.endpoint": "HF_ENDPOINT",
    "hub.token": "HF_TOKEN",
    "hub.home": "HF_HOME",
}
CONFIG_VARIABLE = "INHOUSE_CONFIG"


@dataclass(frozen=True, slots=True)
class Setting:
    """One row of the table, as flags and docs need it."""

    key: str
    variable: str
    default: Any
    help: str


def table() -> Iterator[Setting]:
    """Every setting, in order."""
    for group_name, group in Settings.model_fields.items():
        kind = group.annotation
        assert isinstance(kind, type) and issubclass(kind, BaseModel)
        for name, field in kind.model_fields.items():
            key = f"{group_name}.{name}"
            variable = _OWN_VARIABLES.get(key, "INHOUSE_" + key.upper().replace(".", "_"))
            yield Setting(key, variable, field.default, field.description or "")


def load(flags: Mapping[str, Any], environ: Mapping[str, str], file: Path | None = None) -> Settings:
    """Merge flags (key → value, None = not given), environment and file; SettingsError if bad.

    `file` None: `$INHOUSE_CONFIG`, else `./inhouse.yaml` where it is there, else none.
    """
    values: dict[str, Any] = {}
    places: dict[str, str] = {}

    def put(key: str, value: Any, place: str) -> None:
        values[key], places[key] = value, place

    for setting in table():
        if setting.key.startswith("paths.") or setting.key == "hub.home":
            put(setting.key, _default_path(setting.key, environ), "default")
    path = _config_file(file, environ)
    if path is not None:
        for key, value in _read_file(path).items():
            put(key, value, str(path))
    _refuse_unknown_variables(environ)
    for setting in table():
        text = environ.get(setting.variable, "")
        if text != "":
            put(setting.key, _from_text(setting, text), f"environment {setting.variable}")
    for key, value in flags.items():
        if value is not None:
            put(key, value, f"flag {key}")
    return _validate(values, places)


def _validate(values: Mapping[str, Any], places: Mapping[str, str]) -> Settings:
    nested: dict[str, dict[str, Any]] = {}
    for key, value in values.items():
        group, name = key.split(".", 1)
        if value is not None:
            nested.setdefault(group, {})[name] = value
    try:
        return Settings.model_validate(nested)
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(str(part) for part in first["loc"])
        place = next((where for known, where in places.items() if key.startswith(known)), "default")
        shown = "" if "key" in key or "token" in key else f": {first['input']!r}"
        raise SettingsError(place, key, first["msg"] + shown) from None


def _default_path(key: str, environ: Mapping[str, str]) -> Path | None:
    home = Path(environ.get("HOME") or Path.home())
    data = Path(environ.get("XDG_DATA_HOME") or home / ".local" / "share")
    cache = Path(environ.get("XDG_CACHE_HOME") or home / ".cache")
    own = Path(environ.get("INHOUSE_HOME") or data / "inhouse")
    runtime = environ.get("XDG_RUNTIME_DIR")
    return {
        "paths.home": own,
        # Without XDG_RUNTIME_DIR (root, cron, containers) the sockets lie beside what they serve.
        "paths.run": Path(runtime) / "inhouse" if runtime else own / "run",
        "hub.home": cache / "huggingface",
    }.get(key)


def _config_file(file: Path | None, environ: Mapping[str, str]) -> Path | None:
    named = file or (Path(environ[CONFIG_VARIABLE]) if environ.get(CONFIG_VARIABLE) else None)
    if named is not None:
        return named
    usual = Path("inhouse.yaml")
    return usual if usual.exists() else None


def _read_file(path: Path) -> dict[str, Any]:
    try:
        content = yaml.safe_load(path.read_text()) or {}
    except OSError as error:
        raise SettingsError(str(path), "", f"cannot be read: {error.strerror}") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise SettingsError(str(path), "", f"is not YAML: {_one_line(error)}") from error
    flat: dict[str, Any] = {}
    known = [setting.key for setting in table()]
    if not isinstance(content, dict):
        raise SettingsError(str(path), "", "must be a mapping of groups")
    for group, entries in content.items():
        if not isinstance(entries, dict):
            _check_key(str(path), f"{group}", sorted({key.split(".")[0] for key in known}))
            raise SettingsError(str(path), f"{group}", "must be a mapping")
        for name, value in entries.items():
            _check_key(str(path), f"{group}.{name}", known)
            flat[f"{group}.{name}"] = value
    return flat


def _check_key(place: str, key: str, known: list[str]) -> None:
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
    return tuple(text.split(",")) if isinstance(setting.default, tuple) else text


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())
