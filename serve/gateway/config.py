"""What a gateway process is told at its start, as JSON on its command line."""

from pathlib import Path
from typing import Literal

import msgspec

from serve.errors import SettingsError
from serve.gateway.safety import Bounds

Level = Literal["debug", "info", "warning", "error"]


class Config(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`fd`: the listening socket that the process inherits. `control`: path of control.sock.

    `slot`: which of several gateways this is. Files and folders that are None are not there:
    limits are counted, and nothing is written down, for this process alone. No secret stands here,
    where every user of the machine can read it: `secret_file` holds one (any bytes), from which
    the salts of prefix caches are made; None: a new one at each start.
    """

    fd: int
    control: Path
    slot: int = 0
    log_level: Level = "info"
    drain_s: float = 30.0  # how long running requests may go on after SIGTERM
    grace_s: float = 5.0  # how long we serve on without a supervisor
    # requests
    max_body: int = 32 * 2**20  # bytes of a request body
    head_timeout_s: float = 10.0  # how long a head may take to come
    body_timeout_s: float = 60.0  # how long a body may pause while it comes
    bounds: Bounds = Bounds()
    trusted_proxies: tuple[str, ...] = ()
    # waiting
    wait_s: float = 0.0  # how long a request waits for its turn, or for its model
    most_waiting: int = 1000  # requests for one model
    first_comment_s: float = 5.0  # of silence in a stream, before a comment keeps it alive
    next_comment_s: float = 10.0
    # books
    limits_file: Path | None = None
    journal_folder: Path | None = None
    commit: Literal["group", "each"] = "group"
    audit: Literal["admin", "refusals", "all"] = "refusals"
    secret_file: Path | None = None
    run_folder: Path | None = None  # where the gateways of a machine show each other their metrics
    traces_endpoint: str | None = None
    traces_sample: float = 1.0
    # TLS
    tls_cert: Path | None = None
    tls_key: Path | None = None
    tls_client_ca: Path | None = None
    # files and batches: the folder of their spool; None: they are turned off
    spool_folder: Path | None = None

    def to_json(self) -> str:
        """What `from_json` reads."""
        return msgspec.json.encode(self, enc_hook=str).decode()

    @staticmethod
    def from_json(text: str) -> "Config":
        """The configuration that a supervisor wrote; SettingsError if it is none."""
        try:
            return msgspec.json.decode(text, type=Config, dec_hook=_path)
        except msgspec.MsgspecError as error:
            raise SettingsError("command line", "CONFIG_JSON", str(error)) from None


def _path(kind: type, value: object) -> Path:
    if kind is not Path or not isinstance(value, str):
        raise TypeError(f"{kind.__name__} is not for a configuration")
    return Path(value)
