"""Check everything, reserve in one go, settle once."""

from dataclasses import dataclass

from serve.limits.table import Table
from serve.quota import Key, Limits, Priority, Tenant


@dataclass(frozen=True, slots=True)
class Ask:
    """What a request asks for. `key` None: no key is asked for here.

    `tokens`: input and output that it may take at most, as estimated; `nanos`: what they may cost.
    `slots`: requests that the model's replicas work on at once, 0: as many as come.
    """

    key: Key | None
    tenant: Tenant
    model: str
    model_limits: Limits
    tokens: int
    nanos: int
    priority: Priority
    slots: int
    longest_wait_s: float


class Ticket:
    """One request that is in. `waited_s`: in the queue."""

    __slots__ = ("waited_s",)

    def __init__(self, waited_s: float = 0.0) -> None:
        self.waited_s = waited_s

    def headers(self) -> list[tuple[bytes, bytes]]:
        """OpenAI's `x-ratelimit-*` of the tightest limits; none where there is no limit."""
        return []

    def settle(self, tokens: int, nanos: int) -> None:
        """The request is over, and took so much; what was reserved beyond is given back. Once:
        further calls do nothing."""


class Admission:
    """One per gateway process."""

    def __init__(self, table: Table, most_waiting: int) -> None:
        self._table = table

    def try_enter(self, ask: Ask) -> Ticket | None:
        """In at once; None if it must wait. RateLimited, TooLongForLimit."""
        return Ticket()

    async def enter(self, ask: Ask) -> Ticket:
        """In, after a wait perhaps. RateLimited, TooLongForLimit, QueueFull, QueueTimeout; a
        cancelled wait costs nothing."""
        return Ticket()
