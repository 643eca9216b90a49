"""All engines on this machine and who decides about them.

In: names of models. Out: rosters and statuses. Refuses to know HTTP and terminals.
"""

from serve.fleet.config import FleetConfig
from serve.fleet.fleet import Fleet
from serve.fleet.gateways import GatewayConfig, GatewayPool, GatewayStatus
from serve.fleet.keeper import ModelStatus

__all__ = ["Fleet", "FleetConfig", "GatewayConfig", "GatewayPool", "GatewayStatus", "ModelStatus"]
