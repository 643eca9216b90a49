"""What a gateway writes down of a request: never a word of prompt or answer."""

from typing import Literal

import msgspec

# "left": the client closed the connection; "gone": the engine did; "crashed": the gateway did, as
# its successor found; "refused": nothing was sent to an engine.
Outcome = Literal["ok", "error", "left", "gone", "drained", "crashed", "refused"]


class Start(msgspec.Struct, frozen=True, array_like=True, tag="s"):
    """A request is about to be sent to an engine. Times are unix seconds.

    `tokens`: the estimate of its input. `slot`: its place in the flight table.
    """

    id: str
    at: float
    key: str
    tenant: str
    model: str
    route: str
    tokens: int
    slot: int = 0
    client: str = ""  # its address, if the operator wants it written down


class End(msgspec.Struct, frozen=True, array_like=True, tag="e"):
    """A request is over; it stands for itself, its Start is not needed to read it.

    `ttft_s`: from the request's head to the first bytes of its answer, the queue included.
    `is_estimated`: the engine did not tell the tokens (the answer was not complete).
    `reasoning_tokens` are among `output_tokens`, `cached_tokens` among `input_tokens`.
    """

    id: str
    at: float  # when it began
    key: str
    tenant: str
    model: str
    route: str
    replica: str
    status: int
    outcome: Outcome
    input_tokens: int = 0
    cached_tokens: int = 0
    output_tokens: int = 0
    reasoning_tokens: int = 0
    is_estimated: bool = False
    queue_s: float = 0.0
    ttft_s: float | None = None
    duration_s: float = 0.0
    cost_nanos: int = 0
    client: str = ""


class Refusal(msgspec.Struct, frozen=True, array_like=True, tag="r"):
    """A request that we refused, for the audit log: who, what, from where, why."""

    id: str
    at: float
    key: str
    tenant: str
    route: str
    status: int
    code: str
    client: str


Record = Start | End | Refusal
