"""What gateways are told at their start: their settings, and where the shared files lie."""

import os
import secrets
import socket
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from serve.cli import rooms
from serve.disk import disk_errors
from serve.fleet import GatewayConfig
from serve.gateway import Bounds, Config
from serve.settings import Settings, without_secrets

_SECRET_BYTES = 32


def gateway_config(
    settings: Settings, listener: socket.socket, died: Callable[[int], None]
) -> GatewayConfig:
    """How this supervisor's gateways are run; see `GatewayConfig`."""
    fd = listener.fileno()
    told = _told(settings) | {"fd": fd}

    def argv(slot: int) -> tuple[str, ...]:
        config = Config(**told, slot=slot).to_json()
        return sys.executable, "-m", "serve.gateway", config

    environ = without_secrets(os.environ)
    return GatewayConfig(argv, environ, fd, rooms.log_dir(settings), died)


def limits_file(settings: Settings) -> Path:
    """Where gateways count what keys, tenants and models have taken."""
    return settings.paths.run / "limits"


def journal_folder(settings: Settings) -> Path:
    """Where gateways write down each request, and the supervisor reads it."""
    return settings.paths.home / "journal"


def _told(settings: Settings) -> dict[str, Any]:
    server, request = settings.server, settings.request
    return {
        "control": rooms.control_socket(settings),
        "log_level": settings.log.level,
        "drain_s": server.drain,
        "max_body": server.max_body,
        "head_timeout_s": server.head_timeout,
        "body_timeout_s": server.body_timeout,
        "bounds": Bounds(
            max_depth=request.max_depth,
            max_n=request.max_n,
            max_logprobs=request.max_logprobs,
            max_stops=request.max_stops,
            max_grammar=request.max_grammar,
            media_hosts=tuple(host.lower() for host in request.media_hosts),
        ),
        "trusted_proxies": server.trusted_proxies,
        "wait_s": server.wait,
        "most_waiting": server.queue,
        "limits_file": limits_file(settings),
        "journal_folder": journal_folder(settings),
        "commit": settings.ledger.commit,
        "audit": settings.ledger.audit,
        "secret_file": _secret_file(settings.paths.home / "salt.key"),
        # One gateway has nobody to show its metrics to.
        "run_folder": settings.paths.run if server.gateways > 1 else None,
        "traces_endpoint": settings.traces.endpoint,
        "traces_sample": settings.traces.sample,
        "tls_cert": server.tls_cert,
        "tls_key": server.tls_key,
        "tls_client_ca": server.tls_client_ca,
        "spool_folder": settings.paths.home / "spool" if server.batches == "on" else None,
    }


def _secret_file(path: Path) -> Path:
    """Of it the salts of tenants' prefix caches are made. It stays as it is, so that engines which
    outlive a supervisor still know what they have cached."""
    with disk_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        if not path.exists():
            descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600)
            with os.fdopen(descriptor, "wb") as file:
                file.write(secrets.token_bytes(_SECRET_BYTES))
    return path
