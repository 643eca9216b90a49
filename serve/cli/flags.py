"""Settings as flags: generated from the table in `serve.settings`, so no setting is without one.

A verb that is decorated with `@with_settings("server", …)` takes a parameter `settings: Settings`
and gets the flags of those groups, merged with environment and `inhouse.yaml`.
"""

import inspect
import os
from collections.abc import Callable
from functools import wraps
from pathlib import Path
from typing import Annotated, Any

import typer

from serve.errors import SettingsError
from serve.settings import Setting, Settings, load, table
from serve.units import show_bytes, show_seconds

JsonFlag = Annotated[bool, typer.Option("--json", help="Print JSON, for programs.", metavar=" ")]

# Everything else is called as the last part of its key: `server.max_body` is `--max-body`.
_NAMES = {
    "paths.catalog": "--catalog-file",
    "engine.python": "--engine-python",
    "engine.args": "--engine-arg",
    "hub.endpoint": "--hf-endpoint",
    "hub.token": "--hf-token",
    "hub.home": "--hf-home",
    "paths.lock": "--lock-file",
    "hub.modelscope": "--modelscope-endpoint",
    "policy.licenses": "--allow-license",
    "policy.sources": "--allow-source",
    "policy.repos": "--allow-repo",
    "policy.signers": "--signer",
    "mirror.host": "--host",
    "mirror.port": "--port",
    "mirror.repos": "--repo",
    "mirror.key": "--key",
    "mirror.rate": "--rate",
    "request.media_hosts": "--media-host",
    "server.trusted_proxies": "--trusted-proxy",
    "ledger.url": "--ledger",
    "ledger.commit": "--journal-commit",
    "ledger.retention": "--usage-days",
    "ledger.audit": "--audit",
    "ledger.audit_retention": "--audit-days",
    "traces.endpoint": "--traces",
    "traces.sample": "--traces-sample",
    "log.level": "--log-level",
}
_ARGUMENTS = ("server.models",)  # said without a flag: inhouse serve MODEL…
_PANELS = {
    "server": "Server",
    "engine": "Engine",
    "paths": "Places",
    "hub": "Hugging Face Hub",
    "policy": "Policy",
    "mirror": "Mirror",
    "request": "One request",
    "ledger": "Ledger",
    "traces": "Traces",
    "log": "Log",
}
_METAVARS = {
    "paths.home": "FOLDER",
    "paths.run": "FOLDER",
    "paths.catalog": "FILE",
    "server.host": "ADDRESS",
    "server.max_body": "SIZE",
    "server.drain": "TIME",
    "server.wait": "TIME",
    "server.head_timeout": "TIME",
    "server.body_timeout": "TIME",
    "server.tls_cert": "FILE",
    "server.tls_key": "FILE",
    "server.tls_client_ca": "FILE",
    "server.trusted_proxies": "NETWORK",
    "request.max_grammar": "SIZE",
    "request.media_hosts": "HOST",
    "ledger.url": "URL",
    "ledger.retention": "DAYS",
    "ledger.audit_retention": "DAYS",
    "traces.endpoint": "URL",
    "traces.sample": "SHARE",
    "engine.python": "FILE",
    "engine.dtype": "FORMAT",
    "engine.kv_cache": "SIZE",
    "engine.kv_dtype": "FORMAT",
    "engine.gpu_memory_utilization": "SHARE",
    "engine.start_timeout": "TIME",
    "engine.grace": "TIME",
    "engine.args": "FLAG",
    "paths.lock": "FILE",
    "policy.licenses": "LICENCE",
    "policy.sources": "KIND",
    "policy.repos": "PATTERN",
    "policy.signers": "FILE",
    "mirror.host": "ADDRESS",
    "mirror.repos": "PATTERN",
    "mirror.rate": "SIZE",
    "hub.modelscope": "URL",
    "hub.endpoint": "URL",
    "hub.home": "FOLDER",
}
_CONFIG = Annotated[
    Path | None,
    typer.Option("--config", help="Settings in YAML (default ./inhouse.yaml).", metavar="FILE"),
]


def with_settings(*wanted: str) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Give a verb the flags of groups or single keys, and the merged settings as `settings`."""
    # In the order asked for, which is the order of the panels in the help.
    settings = [
        setting
        for want in wanted
        for setting in table()
        if want in (setting.key, setting.key.split(".")[0]) and setting.key not in _ARGUMENTS
    ]

    def decorate(verb: Callable[..., None]) -> Callable[..., None]:
        @wraps(verb)
        def run(**given: Any) -> None:
            config = given.pop("config_file")
            flags = {s.key: _value(s, given.pop(_parameter(s))) for s in settings}
            verb(**given, settings=merged(flags, config))

        own = [p for p in inspect.signature(verb).parameters.values() if p.name != "settings"]
        more = [_as_parameter("config_file", _CONFIG), *map(_flag, settings)]
        run.__signature__ = inspect.Signature([*own, *more])  # type: ignore[attr-defined]
        return run

    return decorate


def merged(flags: dict[str, Any], config: Path | None) -> Settings:
    """Settings from flags, this process's environment and the file; names flags as typed."""
    try:
        return load(flags, os.environ, config)
    except SettingsError as error:
        if not error.place.startswith("flag "):
            raise
        name = next(flag_name(s) for s in table() if error.key.startswith(s.key))
        raise SettingsError("flag", name, error.problem, error.suggestion) from None


def flag_name(setting: Setting) -> str:
    """`--max-body` for `server.max_body`; secrets are read from a file, as `--api-key-file`."""
    usual = "--" + setting.key.split(".")[1].replace("_", "-")
    return _NAMES.get(setting.key, usual) + ("-file" if setting.kind.is_secret else "")


def _flag(setting: Setting) -> inspect.Parameter:
    option = typer.Option(
        flag_name(setting),
        help=setting.help.rstrip(".") + _default(setting),
        metavar=_metavar(setting),
        rich_help_panel=_PANELS[setting.key.split(".")[0]],
    )
    kind = list[str] if isinstance(setting.default, tuple) else str
    return _as_parameter(_parameter(setting), Annotated[kind | None, option])


def _default(setting: Setting) -> str:
    match setting.default:
        case None | ():
            return ""
        case Path():
            return f" (${setting.variable})"  # what it is then is known at the run only
        case float(seconds) if _METAVARS.get(setting.key) == "TIME":
            return f" (default {show_seconds(seconds)})"
        case int(size) if _METAVARS.get(setting.key) == "SIZE":
            return f" (default {show_bytes(size)})"
        case other:
            return f" (default {other})"


def _as_parameter(name: str, annotation: Any) -> inspect.Parameter:
    return inspect.Parameter(
        name, inspect.Parameter.KEYWORD_ONLY, default=None, annotation=annotation
    )


def _parameter(setting: Setting) -> str:
    return setting.key.replace(".", "_")


def _value(setting: Setting, given: Any) -> Any:
    if given is None or given == []:
        return None
    if not setting.kind.is_secret:
        return tuple(given) if isinstance(given, list) else given
    try:
        return Path(given).read_text().strip()
    except (OSError, UnicodeDecodeError) as error:
        raise SettingsError("flag", flag_name(setting), f"cannot be read: {error}") from error


def _metavar(setting: Setting) -> str:
    kind = setting.kind
    if kind.words and setting.key not in _METAVARS:
        return "|".join(kind.words)
    return "FILE" if kind.is_secret else _METAVARS.get(setting.key, "N")
