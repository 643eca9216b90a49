"""Everything that can go wrong, as one tree. Errors carry facts; the edges choose the words.

InhouseError
├─ SettingsError · CatalogError · UnknownModel
├─ StoreError
│  ├─ SourceUnreachable · AccessDenied · RepoNotFound · NotPulled · ExtraMissing · HashMismatch
│  ├─ UnsafeWeights · WeightsDamaged · DiskFull · NotWritable · ConversionFailed
│  └─ NotAllowed · LockMismatch · BadFile
├─ DoesNotFit
├─ EngineError
│  ├─ RuntimeMissing · RuntimeInstallFailed · IsolationUnavailable
│  └─ StartFailed · StartTimedOut · EngineDied · Quarantined
├─ ServeError
│  └─ PortTaken · OpenDoor · NotRunning · AlreadyRunning · ControlLost · GatewayDied
├─ LedgerError
│  └─ LedgerUnavailable · LedgerNewer · UnknownKey · AuditBroken
└─ RequestError
   ├─ BadRequest · BodyTooLarge · Unauthorized · RouteNotFound · MethodNotAllowed
   ├─ ModelNotServed · ModelNotReady · ShuttingDown · EngineGone
   ├─ Forbidden · KeyExpired · RateLimited · TooLongForLimit · QueueFull · QueueTimeout
   └─ Poisonous · NotEnabled · NoSuchObject

ServeError, LedgerError, RequestError and the root lie in `serve/serving_errors.py`.

No HTTP status, no exit code, no hint lives here: `gateway/errors.py` and `cli/errors.py` hold one
table each, and a house test demands every leaf in both.
"""

from dataclasses import dataclass

from serve.serving_errors import *  # noqa: F403  (all of it is meant to be found here)
from serve.serving_errors import InhouseError


@dataclass(eq=False)
class SettingsError(InhouseError):
    """A setting is unknown or has a value that it cannot have."""

    place: str  # "inhouse.yaml", "environment", "flag --port"
    key: str  # "server.port"
    problem: str
    suggestion: str | None = None


@dataclass(eq=False)
class CatalogError(InhouseError):
    """A catalog file cannot be read."""

    place: str  # the file
    key: str  # "models.qwen3-8b.context"
    problem: str
    suggestion: str | None = None


@dataclass(eq=False)
class UnknownModel(InhouseError):
    """No entry of the catalog has this name or alias."""

    name: str
    near: tuple[str, ...] = ()


@dataclass(eq=False)
class StoreError(InhouseError):
    """Weights cannot be had or held."""


@dataclass(eq=False)
class SourceUnreachable(StoreError):
    """The Hub, the package index or a folder did not answer."""

    source: str
    reason: str


@dataclass(eq=False)
class AccessDenied(StoreError):
    """The source answered 401 or 403: no token, a wrong one, or a gated repository."""

    repo: str
    has_token: bool


@dataclass(eq=False)
class RepoNotFound(StoreError):
    """The source does not know this repository, revision, package or folder."""

    repo: str
    revision: str | None = None


@dataclass(eq=False)
class NotPulled(StoreError):
    """The weights are not here, or not sealed."""

    name: str


@dataclass(eq=False)
class HashMismatch(StoreError):
    """A file is not the one that its source promised."""

    file: str
    expected: str
    actual: str


@dataclass(eq=False)
class UnsafeWeights(StoreError):
    """The repository holds something that we do not load (code, pickles only, a bad header)."""

    file: str
    reason: str


@dataclass(eq=False)
class DiskFull(StoreError):
    """There is not enough room, found out before or while writing."""

    path: str
    needed_bytes: int | None
    free_bytes: int


@dataclass(eq=False)
class NotWritable(StoreError):
    """A folder of ours cannot be written."""

    path: str
    reason: str


@dataclass(eq=False)
class ConversionFailed(StoreError):
    """The converter child ended badly."""

    source: str
    reason: str


@dataclass(eq=False)
class ExtraMissing(StoreError):
    """An optional package is needed for this and not installed."""

    purpose: str  # "pull from ModelScope"
    extra: str  # the extra of ours that brings it: "modelscope"


@dataclass(eq=False)
class WeightsDamaged(StoreError):
    """A file has changed since it was verified; the weights are in quarantine and never loaded."""

    name: str
    file: str
    expected: str  # sha256, or a size
    actual: str


@dataclass(eq=False)
class NotAllowed(StoreError):
    """A rule of the operator's policy refuses the model."""

    name: str
    rule: str  # the setting: "policy.licenses"
    value: str  # what the model has
    allowed: tuple[str, ...]


@dataclass(eq=False)
class LockMismatch(StoreError):
    """Something is not as the lock file says, or the file does not say it."""

    name: str
    what: str  # "model", "revision", "catalog entry", "model.safetensors"
    expected: str  # what is locked; "" if nothing is
    actual: str


@dataclass(eq=False)
class BadFile(StoreError):
    """A lock file, a bundle, a config.json or profiles: damaged, contradictory, or not whole."""

    path: str
    problem: str


@dataclass(eq=False)
class DoesNotFit(InhouseError):
    """The plan's sum (`parts`, in bytes) is too much. `cures`: what makes it fit, and its price."""

    model: str
    device: str
    needed_bytes: int
    free_bytes: int
    parts: tuple[tuple[str, int], ...] = ()
    remedy: str | None = None
    cures: tuple[tuple[str, str], ...] = ()


@dataclass(eq=False)
class EngineError(InhouseError):
    """An engine or its runtime failed."""


@dataclass(eq=False)
class RuntimeMissing(EngineError):
    """No runtime for this device is installed."""

    device: str
    looked_in: str


@dataclass(eq=False)
class RuntimeInstallFailed(EngineError):
    """The installer ended badly."""

    name: str
    reason: str


@dataclass(eq=False)
class IsolationUnavailable(EngineError):
    """`--isolation required`, but the OS grants no namespaces."""

    reason: str


@dataclass(eq=False)
class StartFailed(EngineError):
    """An engine ended before it was ready. `cause`: the root cause found in its log; `finding`: its
    kind and figures, where they can be acted on: ("context", "18720")."""

    model: str
    cause: str
    log_path: str
    exit_code: int | None
    remedy: str | None = None
    finding: tuple[str, ...] = ()


@dataclass(eq=False)
class StartTimedOut(EngineError):
    """An engine was not ready in time."""

    model: str
    waited_s: float
    log_path: str


@dataclass(eq=False)
class EngineDied(EngineError):
    """A ready engine ended by itself."""

    model: str
    exit_code: int | None
    log_path: str


@dataclass(eq=False)
class Quarantined(EngineError):
    """An engine died too often in a row; it is not started again by itself."""

    model: str
    deaths: int
    cause: str


def leaves(root: type[InhouseError] = InhouseError) -> list[type[InhouseError]]:
    """All concrete errors: classes without subclasses, in order of definition."""
    below = root.__subclasses__()
    return [leaf for child in below for leaf in leaves(child)] if below else [root]
