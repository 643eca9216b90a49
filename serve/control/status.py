"""What `GET /status` says."""

from dataclasses import dataclass

from serve.fleet import GatewayStatus, ModelStatus


@dataclass(frozen=True, slots=True)
class Status:
    """The supervisor, its gateways and every model it serves.

    `started_at`: unix seconds; `address`: a URL without `/v1`. `runtime`: name of the runtime that
    engines run with; `isolation`: what the operator asked for (each model says what it has).
    """

    pid: int
    version: str
    started_at: float
    address: str
    runtime: str
    isolation: str
    gateways: tuple[GatewayStatus, ...] = ()
    models: tuple[ModelStatus, ...] = ()
