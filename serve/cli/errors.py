"""Every error in words: class → sentence, hint, exit code. The one table of exit codes.

A sentence names the value after a colon and has no full stop; a hint is the next thing to type or
to do. A house test demands a row for every leaf of `serve.errors`.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from serve import errors
from serve.errors import InhouseError
from serve.units import show_bytes, show_seconds

# 0: done. 1: Python's own, for what we did not foresee.
USAGE = 2  # a flag, a setting, a file of settings
MODEL = 3  # no such model, or not here
STORE = 4  # the network or the disk
FIT = 5  # not enough memory
ENGINE = 6  # the runtime or vLLM
SERVE = 7  # ports, sockets, the supervisor
REQUEST = 8  # a request was refused
INTERRUPTED = 130  # as a shell has it for SIGINT


@dataclass(frozen=True, slots=True)
class Words:
    """How an error is told: functions of the error, because its facts belong into the words."""

    sentence: Callable[[Any], str]
    hint: Callable[[Any], str | None]
    exit_code: int


@dataclass(frozen=True, slots=True)
class Told:
    """An error, told."""

    sentence: str
    hint: str | None
    exit_code: int


def tell(error: InhouseError) -> Told:
    """Put `error` into words."""
    words = TABLE[type(error)]
    return Told(words.sentence(error), words.hint(error), words.exit_code)


def _settings_sentence(e: errors.SettingsError | errors.CatalogError) -> str:
    where = f"{e.place}: {e.key}" if e.key else e.place
    return f"{where}: {e.problem}"


def _near(names: tuple[str, ...]) -> str | None:
    return f"did you mean {' or '.join(names)}?" if names else None


def _parts(e: errors.DoesNotFit) -> str:
    rows = [f"\n  {show_bytes(size):>10}  {label}" for label, size in e.parts]
    rows += [f"\n  it would fit with {change}: {price}" for change, price in e.cures]
    need, free = show_bytes(e.needed_bytes), show_bytes(e.free_bytes)
    sums = f"needs {need}, free {free}"
    if e.needed_bytes <= e.free_bytes:
        sums = f"there is room for the {need} that it needs, but not where it was told to be"
    return f"{e.model} does not fit on {e.device}: {sums}" + "".join(rows)


def _failed(e: errors.StartFailed) -> str:
    return f"the engine of {e.model} ended before it was ready{_how(e.exit_code)}: {e.cause}"


def _how(exit_code: int | None) -> str:
    if exit_code is None:
        return ""
    return f" (signal {-exit_code})" if exit_code < 0 else f" (exit code {exit_code})"


def _denied_hint(e: errors.AccessDenied) -> str:
    if e.has_token:
        return f"ask for access at https://huggingface.co/{e.repo}, or use another HF_TOKEN"
    return "make a token at https://huggingface.co/settings/tokens and put it into HF_TOKEN"


def _disk_sentence(e: errors.DiskFull) -> str:
    need = f"needs {show_bytes(e.needed_bytes)}, " if e.needed_bytes is not None else ""
    return f"not enough room on the disk: {e.path} ({need}free {show_bytes(e.free_bytes)})"


def _lock_sentence(e: errors.LockMismatch) -> str:
    if e.what == "lock file":
        return f"there is no lock file: {e.actual}"
    if not e.expected:
        return f"the lock file does not name the {e.what}: {e.actual}"
    return f"{e.name} is not what is locked: {e.what} (locked {e.expected}, found {e.actual})"


def _lock_hint(e: errors.LockMismatch) -> str:
    if e.what == "lock file":
        return "inhouse lock   (writes one for what is here, or for the models named)"
    flag = "--upgrade " if e.expected else ""
    return f"inhouse lock {flag}{e.name}   (shows the difference and accepts it)"


def _bad_file_hint(e: errors.BadFile) -> str:
    if e.path.endswith(".lock"):
        return (
            "restore it from where it was committed; or move it away: inhouse lock makes a new one"
        )
    return "copy it again, or bring what is missing; a look at it: inhouse bundle verify FILE…"


def _revision(e: errors.RepoNotFound) -> str:
    return f" at revision {e.revision}" if e.revision else ""


def _log_hint(e: errors.EngineDied | errors.StartTimedOut | errors.StartFailed) -> str:
    return f"inhouse logs {e.model}   (the whole log: {e.log_path})"


def _timed_out_hint(e: errors.StartTimedOut) -> str:
    return f"{_log_hint(e)}, or allow more: --start-timeout {e.waited_s * 2:.0f}s"


# What only a client of the API is told, by the gateway's words; here for completeness.
_REFUSALS = (
    errors.KeyExpired, errors.Forbidden, errors.Poisonous, errors.NotEnabled, errors.NoSuchObject,
    errors.RateLimited, errors.TooLongForLimit, errors.QueueFull, errors.QueueTimeout,
)  # fmt: skip
REFUSED = Words(
    lambda e: f"the request was refused: {e}", lambda e: "inhouse key ls; inhouse ps", REQUEST
)

TABLE: dict[type[InhouseError], Words] = {
    errors.SettingsError: Words(
        _settings_sentence,
        lambda e: _near((e.suggestion,)) if e.suggestion else "inhouse serve --help",
        USAGE,
    ),
    errors.CatalogError: Words(
        _settings_sentence,
        lambda e: _near((e.suggestion,)) if e.suggestion else f"correct {e.place}",
        USAGE,
    ),
    errors.UnknownModel: Words(
        lambda e: f"no such model: {e.name}",
        lambda e: _near(e.near) or "inhouse ls --catalog   (everything that can be served)",
        MODEL,
    ),
    errors.SourceUnreachable: Words(
        lambda e: f"{e.source} cannot be reached: {e.reason}",
        lambda e: "check the network or set HF_ENDPOINT to a mirror; what is here: inhouse ls",
        STORE,
    ),
    errors.AccessDenied: Words(
        lambda e: f"access denied{'' if e.has_token else ' without a token'}: {e.repo}",
        _denied_hint,
        STORE,
    ),
    errors.RepoNotFound: Words(
        lambda e: f"the source does not have it: {e.repo}{_revision(e)}",
        lambda e: "private repositories are hidden without HF_TOKEN; else correct the catalog",
        STORE,
    ),
    errors.NotPulled: Words(
        lambda e: f"the weights are not here: {e.name}",
        lambda e: f"inhouse pull {e.name}",
        MODEL,
    ),
    errors.HashMismatch: Words(
        lambda e: (
            f"not the file that was promised: {e.file} (expected sha256 {e.expected}, "
            f"got {e.actual})"
        ),
        lambda e: "pull again; if it stays so, the source or something on the way altered it",
        STORE,
    ),
    errors.UnsafeWeights: Words(
        lambda e: f"refused to load: {e.file}: {e.reason}",
        lambda e: "choose a repository that has safetensors and needs no code of its own",
        STORE,
    ),
    errors.DiskFull: Words(
        _disk_sentence, lambda e: "inhouse ls shows what is held; INHOUSE_HOME moves it", STORE
    ),
    errors.NotWritable: Words(
        lambda e: f"cannot write: {e.path}: {e.reason}",
        lambda e: "make it writable, or set INHOUSE_HOME (data) or INHOUSE_RUN (sockets)",
        STORE,
    ),
    errors.ConversionFailed: Words(
        lambda e: f"converting failed: {e.source}: {e.reason}",
        lambda e: "inhouse doctor",
        STORE,
    ),
    errors.ExtraMissing: Words(
        lambda e: f"an optional package is needed to {e.purpose}",
        lambda e: f"pip install 'inhouse[{e.extra}]'",
        STORE,
    ),
    errors.WeightsDamaged: Words(
        lambda e: (
            f"{e.name} is in quarantine: {e.file} has changed since it was verified "
            f"(expected {e.expected}, got {e.actual})"
        ),
        lambda e: (
            f"inhouse pull {e.name}   "
            "(fetches the damaged file anew; a folder of yours is sealed as it is now)"
        ),
        STORE,
    ),
    errors.NotAllowed: Words(
        lambda e: f"{e.rule} does not allow {e.name}: {e.value} (allowed: {', '.join(e.allowed)})",
        lambda e: f"choose another model, or extend {e.rule} in inhouse.yaml",
        STORE,
    ),
    errors.LockMismatch: Words(_lock_sentence, _lock_hint, STORE),
    errors.BadFile: Words(
        lambda e: f"cannot use {e.path}: {e.problem}",
        _bad_file_hint,
        STORE,
    ),
    errors.DoesNotFit: Words(
        _parts, lambda e: e.remedy or "a smaller model: inhouse ls --catalog", FIT
    ),
    errors.RuntimeMissing: Words(
        lambda e: f"no runtime for {e.device} is installed: {e.looked_in}",
        lambda e: f"inhouse engine install --device {e.device}",
        ENGINE,
    ),
    errors.RuntimeInstallFailed: Words(
        lambda e: f"installing {e.name} failed: {e.reason}",
        lambda e: "check the network and the disk, then run it again: what was fetched is kept",
        ENGINE,
    ),
    errors.IsolationUnavailable: Words(
        lambda e: f"engines cannot be isolated here: {e.reason}",
        lambda e: "inhouse doctor shows the cure; --isolation auto serves without",
        ENGINE,
    ),
    errors.StartFailed: Words(_failed, lambda e: e.remedy or _log_hint(e), ENGINE),
    errors.StartTimedOut: Words(
        lambda e: f"the engine of {e.model} was not ready in time: {show_seconds(e.waited_s)}",
        _timed_out_hint,
        ENGINE,
    ),
    errors.EngineDied: Words(
        lambda e: f"the engine of {e.model} ended by itself{_how(e.exit_code)}",
        _log_hint,
        ENGINE,
    ),
    errors.Quarantined: Words(
        lambda e: f"{e.model} died {e.deaths} times in a row and is left alone: {e.cause}",
        lambda e: f"inhouse load {e.model}   (tries again)",
        ENGINE,
    ),
    errors.PortTaken: Words(
        lambda e: f"somebody else listens there: {e.host}:{e.port}",
        lambda e: f"inhouse {e.verb} --port {e.port + 1 if e.port < 65535 else 8001}",
        SERVE,
    ),
    errors.OpenDoor: Words(
        lambda e: f"refused to listen beyond this machine without a key: {e.host}",
        lambda e: (
            "inhouse key create --tenant NAME, or --api-key-file (a mirror: --key-file); "
            "or listen on 127.0.0.1"
        ),
        SERVE,
    ),
    errors.NotRunning: Words(
        lambda e: f"nothing is served here: {e.socket}",
        lambda e: "inhouse serve",
        SERVE,
    ),
    errors.AlreadyRunning: Words(
        lambda e: f"inhouse serves already: {e.socket}",
        lambda e: "inhouse ps; one more model: inhouse load MODEL; the end: inhouse stop",
        SERVE,
    ),
    errors.ControlLost: Words(
        lambda e: f"the supervisor went away: {e.reason}",
        lambda e: "inhouse ps; if it is gone: inhouse serve",
        SERVE,
    ),
    errors.GatewayDied: Words(
        lambda e: f"the gateway ends again and again{_how(e.exit_code)}",
        lambda e: f"read {e.log_path}",
        SERVE,
    ),
    errors.BadRequest: Words(
        lambda e: f"the request was refused: {e.problem}",
        lambda e: f"correct {e.param}" if e.param else None,
        REQUEST,
    ),
    errors.BodyTooLarge: Words(
        lambda e: f"the request is too large: more than {show_bytes(e.limit_bytes)}",
        lambda e: "say less, or serve with a larger --max-body",
        REQUEST,
    ),
    errors.Unauthorized: Words(
        lambda e: f"the server refused {'this key' if e.has_key else 'a request without a key'}",
        lambda e: "set INHOUSE_API_KEY to the key that inhouse serve was given",
        REQUEST,
    ),
    errors.RouteNotFound: Words(
        lambda e: f"the server has no such path: {e.method} {e.path}",
        lambda e: "is it inhouse that listens there? inhouse ps",
        REQUEST,
    ),
    errors.MethodNotAllowed: Words(
        lambda e: f"the server's path takes no {e.method}: {e.path}",
        lambda e: "is it inhouse that listens there? inhouse ps",
        REQUEST,
    ),
    errors.ModelNotServed: Words(
        lambda e: f"the model is not served: {e.name}",
        lambda e: _near(e.near) or f"inhouse load {e.name}",
        MODEL,
    ),
    errors.ModelNotReady: Words(
        lambda e: f"{e.name} cannot answer now: {e.state}",
        lambda e: f"try again in {show_seconds(e.retry_after_s)}; inhouse ps",
        MODEL,
    ),
    errors.ShuttingDown: Words(
        lambda e: "the server is about to stop", lambda e: "inhouse serve", SERVE
    ),
    errors.LedgerUnavailable: Words(
        lambda e: f"the ledger cannot be used: {e.url}: {e.reason}",
        lambda e: "check ledger.url, the database and the disk",
        STORE,
    ),
    errors.LedgerNewer: Words(
        lambda e: f"a newer Inhouse has written the ledger: {e.url} (revision {e.revision})",
        lambda e: "use that version, or another ledger.url",
        STORE,
    ),
    errors.UnknownKey: Words(
        lambda e: f"no such key: {e.name}", lambda e: _near(e.near) or "inhouse key ls", USAGE
    ),
    errors.AuditBroken: Words(
        lambda e: f"the audit log was changed: record {e.at}: {e.problem}",
        lambda e: "compare it with what was exported before; keep a copy of it as it is",
        STORE,
    ),
    **dict.fromkeys(_REFUSALS, REFUSED),
    errors.EngineGone: Words(
        lambda e: (
            f"the engine of {e.model} went away "
            f"{'in the middle of' if e.is_started else 'before'} its answer"
        ),
        lambda e: "ask again: it is started anew; inhouse ps",
        ENGINE,
    ),
}
