"""Asks for tests, short to write."""

from serve.limits import Ask
from serve.quota import Key, Limits, Priority, Tenant

FREE = Limits()


def ask(
    tokens: int = 1,
    nanos: int = 0,
    *,
    of_key: Limits = FREE,
    of_tenant: Limits = FREE,
    of_model: Limits = FREE,
    key: str = "k",
    tenant: str = "t",
    weight: int = 1,
    slots: int = 0,
    wait_s: float = 30.0,
    priority: Priority = "default",
) -> Ask:
    return Ask(
        key=Key(key, "00", tenant, limits=of_key),
        tenant=Tenant(tenant, weight, of_tenant),
        model="m",
        model_limits=of_model,
        tokens=tokens,
        nanos=nanos,
        priority=priority,
        slots=slots,
        longest_wait_s=wait_s,
    )
