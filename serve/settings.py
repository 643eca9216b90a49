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
from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    SecretStr,
    ValidationError,
)

from serve.errors import SettingsError
from serve.sources import KINDS, Kind
from serve.units import parse_bytes, parse_seconds

Bytes = Annotated[
    int, BeforeValidator(lambda v: parse_bytes(v) if isinstance(v, str) else v), Field(ge=0)
]
Seconds = Annotated[
    float,
    BeforeValidator(lambda v: parse_seconds(v) if isinstance(v, str) else v),
    Field(ge=0, allow_inf_nan=False),
]
# A path is used from other folders too (engines, the installer). Links stay as they are: the
# interpreter of a virtual environment is one.
Place = Annotated[Path, AfterValidator(Path.absolute)]


class _Group(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Paths(_Group):
    """Where things lie."""

    home: Place = Field(Path(), description="Where runtimes, weights, manifests and logs lie.")
    run: Place = Field(Path(), description="Where control.sock and the engines' sockets lie.")
    catalog: Place | None = Field(None, description="A catalog of your own, laid over models.yaml.")
    lock: Place = Field(Path("models.lock"), description="The lock file, made to be committed.")


class Server(_Group):
    """The HTTP side, and what is served."""

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
    """How models are run."""

    python: Place | None = Field(None, description="An interpreter that has vLLM already.")
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
    grace: Seconds = Field(4.0, description="How long engines outlive a dead supervisor.")
    args: tuple[str, ...] = Field((), description="More flags for vLLM, as they are.")


class Hub(_Group):
    """Where weights come from."""

    endpoint: str = Field("https://huggingface.co", description="The Hub, or a mirror of it.")
    token: SecretStr | None = Field(None, description="Token for gated and private repositories.")
    home: Place = Field(Path(), description="The Hub client's folder, shared with other tools.")
    modelscope: str = Field("https://www.modelscope.cn", description="ModelScope's address.")
    parallel: int = Field(4, ge=1, le=32, description="Files that are fetched at once.")


class Policy(_Group):
    """What may be held and served; an empty list allows everything."""

    licenses: tuple[str, ...] = Field(
        (), description="Allowed licences: names, or `commercial:yes`; `*` and `?` match."
    )
    sources: tuple[Kind, ...] = Field((), description=f"Allowed sources: {', '.join(KINDS)}.")
    repos: tuple[str, ...] = Field((), description="Allowed repositories: patterns, as `Qwen/*`.")
    signers: tuple[Place, ...] = Field(
        (), description="Public keys (PEM); bundles must be signed by one of them."
    )


class Mirror(_Group):
    """What `inhouse mirror` gives to other machines."""

    host: str = Field("127.0.0.1", description="Address to listen on.")
    port: int = Field(8090, ge=1, le=65535, description="Port to listen on.")
    repos: tuple[str, ...] = Field((), description="Repositories to give; empty: all that is here.")
    key: SecretStr | None = Field(None, description="The key that clients must send, as HF_TOKEN.")
    rate: Bytes | None = Field(None, description="Most bytes per second, of all clients together.")


class Log(_Group):
    """What is said on stderr."""

    level: Literal["debug", "info", "warning", "error"] = Field("info", description="Least level.")


class Settings(_Group):
    """All settings of one run. Nobody below `cli/` reads the environment."""

    paths: Paths = Paths()
    server: Server = Server()
    engine: Engine = Engine()
    hub: Hub = Hub()
    policy: Policy = Policy()
    mirror: Mirror = Mirror()
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
_SECRETS = ("server.api_key", "hub.token", "mirror.key")


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


def without_secrets(environ: Mapping[str, str]) -> dict[str, str]:
    """The environment for children: what only we need, they do not find there."""
    secret = {setting.variable for setting in table() if setting.key in _SECRETS}
    return {name: value for name, value in environ.items() if name not in secret}


def load(
    flags: Mapping[str, Any], environ: Mapping[str, str], file: Path | None = None
) -> Settings:
    """Merge flags (key → value, None = not given), environment and file; SettingsError if bad.

    `file` None: `$INHOUSE_CONFIG`, else `./inhouse.yaml` where it is there, else none.
    Paths become absolute, seen from the working folder; `~` is the home folder.
    """
    values: dict[str, Any] = {}
    places: dict[str, str] = {}

    def put(key: str, value: Any, place: str) -> None:
        if value is not None:
            values[key], places[key] = value, place

    for key, default in _default_paths(environ).items():
        put(key, default, "default")
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
        put(key, value, f"flag {key}")
    return _validate({key: _at_home(value, environ) for key, value in values.items()}, places)


def _validate(values: Mapping[str, Any], places: Mapping[str, str]) -> Settings:
    nested: dict[str, dict[str, Any]] = {}
    for key, value in values.items():
        group, name = key.split(".", 1)
        nested.setdefault(group, {})[name] = value
    try:
        return Settings.model_validate(nested)
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(str(part) for part in first["loc"])
        setting = ".".join(key.split(".")[:2])
        is_told = first["type"] == "value_error" or setting in _SECRETS
        problem = first["msg"].removeprefix("Value error, ")
        shown = "" if is_told else f": {first['input']!r}"
        raise SettingsError(places.get(setting, "default"), key, problem + shown) from None


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


def _read_file(path: Path) -> dict[str, Any]:
    content = _read_yaml(path)
    flat: dict[str, Any] = {}
    known = [setting.key for setting in table()]
    if not isinstance(content, dict):
        raise SettingsError(str(path), "", "must be a mapping of groups")
    for group, entries in content.items():
        _check_key(str(path), f"{group}", list(Settings.model_fields))
        if not isinstance(entries, dict | None):
            raise SettingsError(str(path), f"{group}", "must be a mapping")
        for name, value in (entries or {}).items():
            _check_key(str(path), f"{group}.{name}", known)
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
    if isinstance(setting.default, tuple):
        return tuple(part.strip() for part in text.split(","))
    return text


def _at_home(value: Any, environ: Mapping[str, str]) -> Any:
    """`~/models` as a shell reads it."""
    is_at_home = isinstance(value, str) and value.startswith("~/")
    return f"{_home(environ)}{value[1:]}" if is_at_home else value


def _home(environ: Mapping[str, str]) -> Path:
    return Path(environ.get("HOME") or Path.home())
