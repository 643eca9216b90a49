"""The one table of settings: group, name, kind, default, and a sentence for people.

A setting's key is its place below (`server.port`), its variable is `INHOUSE_SERVER_PORT`; a few
have the name by which the rest of the world knows them (`HF_TOKEN`).
"""

from dataclasses import dataclass, field, fields
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal

from serve.quota import Tenant
from serve.settings.kinds import (
    PLACE,
    SECRET,
    TEXT,
    Kind,
    Secret,
    many,
    number,
    one_of,
    whole,
)
from serve.settings.sections import ModelTerms
from serve.sources import KINDS
from serve.sources import Kind as SourceKind
from serve.units import parse_bytes, parse_seconds, parse_tokens

_BYTES = whole(0, parse=parse_bytes)
_SECONDS = number(0, parse=parse_seconds)
_PORT = whole(1, 65535)
_COUNT = whole(1)


def _row(kind: Kind, default: Any, help: str) -> Any:
    return field(default=default, metadata={"kind": kind, "help": help})


@dataclass(frozen=True, slots=True)
class Paths:
    """Where things lie."""

    home: Path = _row(PLACE, Path(), "Where runtimes, weights, manifests and logs lie.")
    run: Path = _row(PLACE, Path(), "Where control.sock and the engines' sockets lie.")
    catalog: Path | None = _row(PLACE, None, "A catalog of your own, laid over models.yaml.")
    lock: Path = _row(PLACE, Path("models.lock"), "The lock file, made to be committed.")


@dataclass(frozen=True, slots=True)
class Server:
    """The HTTP side, and what is served."""

    models: tuple[str, ...] = _row(many(TEXT), (), "Models to serve when none is named.")
    host: str = _row(TEXT, "127.0.0.1", "Address to listen on.")
    port: int = _row(_PORT, 8000, "Port to listen on.")
    api_key: Secret | None = _row(
        SECRET, None, "The key that clients must send; needed to listen beyond loopback."
    )
    gateways: int = _row(whole(1, 64), 1, "Gateway processes that share the port.")
    max_body: int = _row(_BYTES, 32 * 2**20, "Largest request body.")
    drain: float = _row(_SECONDS, 30.0, "How long a stop waits for running requests.")
    wait: float = _row(_SECONDS, 120.0, "How long a request waits for its turn, or its model.")
    queue: int = _row(whole(0), 1000, "Requests that may wait for one model.")
    head_timeout: float = _row(_SECONDS, 10.0, "How long a request's head may take to come.")
    body_timeout: float = _row(_SECONDS, 60.0, "How long a body may pause while it comes.")
    tls_cert: Path | None = _row(PLACE, None, "Certificate chain (PEM); read anew when it changes.")
    tls_key: Path | None = _row(PLACE, None, "Its private key (PEM).")
    tls_client_ca: Path | None = _row(
        PLACE, None, "Who signs clients' certificates (PEM); without one nobody enters."
    )
    trusted_proxies: tuple[str, ...] = _row(
        many(TEXT), (), "Networks (CIDR) of proxies whose X-Forwarded-For is believed."
    )
    batches: Literal["off", "on"] = _row(
        one_of("off", "on"), "off", "Files and batches; they put text on the disk, encrypted."
    )


@dataclass(frozen=True, slots=True)
class Engine:
    """How models are run."""

    python: Path | None = _row(PLACE, None, "An interpreter that has vLLM already.")
    device: Literal["auto", "cpu", "cuda"] = _row(
        one_of("auto", "cpu", "cuda"), "auto", "What engines run on."
    )
    isolation: Literal["auto", "required", "off"] = _row(
        one_of("auto", "required", "off"), "auto",
        "Engines without any network: where possible, or refuse to start.",
    )  # fmt: skip
    spares: int | None = _row(
        whole(0, 4), None, "Hosts kept ready; default 1 with 8 GiB free memory, else 0."
    )
    compile: Literal["auto", "off"] = _row(
        one_of("auto", "off"), "auto", "On a CPU, prepare and use the model's compiled form."
    )
    context: int | None = _row(whole(16, parse=parse_tokens), None, "Longest context in tokens.")
    concurrency: int | None = _row(_COUNT, None, "Requests of full length that must fit at once.")
    dtype: Literal["auto", "bfloat16", "float16", "float32"] | None = _row(
        one_of("auto", "bfloat16", "float16", "float32"), None,
        "What is not quantised: auto, bfloat16, float16 or float32.",
    )  # fmt: skip
    kv_cache: int | None = _row(_BYTES, None, "Bytes for the KV cache on each device.")
    kv_dtype: Literal["auto", "fp8", "fp8_e4m3", "fp8_e5m2"] | None = _row(
        one_of("auto", "fp8", "fp8_e4m3", "fp8_e5m2"), None,
        "The KV cache's numbers: auto, fp8, fp8_e4m3 or fp8_e5m2.",
    )  # fmt: skip
    gpu_memory_utilization: float | None = _row(
        number(above=0, most=1), None, "Share of each card that an engine may take."
    )
    max_num_seqs: int | None = _row(_COUNT, None, "Most sequences in one step.")
    max_num_batched_tokens: int | None = _row(_COUNT, None, "Most tokens in one step.")
    tensor_parallel: int | None = _row(
        whole(1, 1024), None, "Cards that share the work on each layer."
    )
    pipeline_parallel: int | None = _row(
        whole(1, 1024), None, "Groups of cards that hold some of the layers each."
    )
    start_timeout: float = _row(_SECONDS, 900.0, "How long an engine may take to be ready.")
    grace: float = _row(_SECONDS, 4.0, "How long engines outlive a dead supervisor.")
    args: tuple[str, ...] = _row(many(TEXT), (), "More flags for vLLM, as they are.")


@dataclass(frozen=True, slots=True)
class Hub:
    """Where weights come from."""

    endpoint: str = _row(TEXT, "https://huggingface.co", "The Hub, or a mirror of it.")
    token: Secret | None = _row(SECRET, None, "Token for gated and private repositories.")
    home: Path = _row(PLACE, Path(), "The Hub client's folder, shared with other tools.")
    modelscope: str = _row(TEXT, "https://www.modelscope.cn", "ModelScope's address.")
    parallel: int = _row(whole(1, 32), 4, "Files that are fetched at once.")


@dataclass(frozen=True, slots=True)
class Policy:
    """What may be held and served; an empty list allows everything."""

    licenses: tuple[str, ...] = _row(
        many(TEXT), (), "Allowed licences: names, or `commercial:yes`; `*` and `?` match."
    )
    sources: tuple[SourceKind, ...] = _row(
        many(one_of(*KINDS)), (), f"Allowed sources: {', '.join(KINDS)}."
    )
    repos: tuple[str, ...] = _row(many(TEXT), (), "Allowed repositories: patterns, as `Qwen/*`.")
    signers: tuple[Path, ...] = _row(
        many(PLACE), (), "Public keys (PEM); bundles must be signed by one of them."
    )


@dataclass(frozen=True, slots=True)
class Mirror:
    """What `inhouse mirror` gives to other machines."""

    host: str = _row(TEXT, "127.0.0.1", "Address to listen on.")
    port: int = _row(_PORT, 8090, "Port to listen on.")
    repos: tuple[str, ...] = _row(many(TEXT), (), "Repositories to give; empty: all that is here.")
    key: Secret | None = _row(SECRET, None, "The key that clients must send, as HF_TOKEN.")
    rate: int | None = _row(_BYTES, None, "Most bytes per second, of all clients together.")


@dataclass(frozen=True, slots=True)
class Request:
    """What one request may ask for, so that it cannot hurt an engine that all share."""

    max_depth: int = _row(_COUNT, 64, "Deepest nesting of a body.")
    max_n: int = _row(_COUNT, 16, "Most answers to one prompt (n, best_of), most prompts in one.")
    max_logprobs: int = _row(whole(0), 20, "Most logprobs per token.")
    max_stops: int = _row(whole(0), 16, "Most stop sequences.")
    max_grammar: int = _row(_BYTES, 64 * 2**10, "Largest regex, grammar or JSON schema.")
    media_hosts: tuple[str, ...] = _row(
        many(TEXT), (), "Hosts that images and sounds may be fetched from; empty: none."
    )


@dataclass(frozen=True, slots=True)
class Ledger:
    """Keys, usage and the audit log."""

    url: str | None = _row(TEXT, None, "Database (postgresql://…); default SQLite in paths.home.")
    commit: Literal["group", "each"] = _row(
        one_of("group", "each"), "group",
        "The journal is on the disk every 20 ms, or before each answer ends.",
    )  # fmt: skip
    retention: int | None = _row(_COUNT, None, "Days that usage is kept; default: for ever.")
    audit: Literal["admin", "refusals", "all"] = _row(
        one_of("admin", "refusals", "all"), "refusals",
        "What the audit log holds: admin actions; refusals too; or every request.",
    )  # fmt: skip
    audit_retention: int = _row(_COUNT, 180, "Days that the audit log is kept.")


@dataclass(frozen=True, slots=True)
class Traces:
    """OpenTelemetry, without any content."""

    endpoint: str | None = _row(TEXT, None, "Where traces go (OTLP over HTTP); default: nowhere.")
    sample: float = _row(number(0, most=1), 1.0, "Share of requests that are traced.")


@dataclass(frozen=True, slots=True)
class Log:
    """What is said on stderr."""

    level: Literal["debug", "info", "warning", "error"] = _row(
        one_of("debug", "info", "warning", "error"), "info", "Least level."
    )


@dataclass(frozen=True, slots=True)
class Settings:
    """All settings of one run. Nobody below `cli/` reads the environment."""

    paths: Paths = Paths()
    server: Server = Server()
    engine: Engine = Engine()
    hub: Hub = Hub()
    policy: Policy = Policy()
    mirror: Mirror = Mirror()
    request: Request = Request()
    ledger: Ledger = Ledger()
    traces: Traces = Traces()
    log: Log = Log()
    models: tuple[ModelTerms, ...] = field(default=(), metadata={"is_section": True})
    tenants: tuple[Tenant, ...] = field(default=(), metadata={"is_section": True})


GROUPS: dict[str, type[Any]] = {
    each.name: type(each.default) for each in fields(Settings) if "is_section" not in each.metadata
}
_OWN_VARIABLES = {
    "paths.home": "INHOUSE_HOME",
    "paths.run": "INHOUSE_RUN",
    "server.api_key": "INHOUSE_API_KEY",
    "hub.endpoint": "HF_ENDPOINT",
    "hub.token": "HF_TOKEN",
    "hub.home": "HF_HOME",
}


@dataclass(frozen=True, slots=True)
class Setting:
    """One row of the table, as flags and docs need it."""

    key: str
    variable: str
    default: Any
    help: str
    kind: Kind


@lru_cache(maxsize=1)
def table() -> tuple[Setting, ...]:
    """Every setting, in order."""
    return tuple(
        Setting(
            key := f"{group}.{row.name}",
            _OWN_VARIABLES.get(key, "INHOUSE_" + key.upper().replace(".", "_")),
            row.default,
            row.metadata["help"],
            row.metadata["kind"],
        )
        for group, rows in GROUPS.items()
        for row in fields(rows)
    )
