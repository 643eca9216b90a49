"""What is written down of a batch, in the spool: the order, how far it is, and its answers."""

import time
from collections.abc import Iterator
from typing import Any, Literal, TypeVar

import msgspec

from serve.errors import NoSuchObject
from serve.gateway.spool import Spool

Status = Literal[
    "validating", "failed", "in_progress", "finalizing", "completed", "expired", "cancelling",
    "cancelled",
]  # fmt: skip
OVER = frozenset(("failed", "completed", "expired", "cancelled"))


class Order(msgspec.Struct, frozen=True):
    """What a client has asked for; never changed. `key`: its id, empty where none is asked for."""

    id: str
    tenant: str
    key: str
    endpoint: str
    input_file_id: str
    completion_window: str
    created_at: int
    expires_at: int
    metadata: dict[str, str] | None = None


class Fault(msgspec.Struct, frozen=True):
    """Why an input file was refused."""

    code: str
    message: str
    line: int | None = None
    param: str | None = None


class Progress(msgspec.Struct):
    """How far a batch is. Only who runs batches writes it; times are unix seconds."""

    status: Status = "validating"
    total: int = 0
    completed: int = 0
    failed: int = 0
    output_file_id: str | None = None
    error_file_id: str | None = None
    errors: list[Fault] = []
    at: dict[str, int] = {}  # status → when it began

    def enter(self, status: Status) -> None:
        self.status = status
        self.at[status] = int(time.time())

    def count(self, line: "Line") -> None:
        if line.is_ok:
            self.completed += 1
        else:
            self.failed += 1


_Record = TypeVar("_Record", Order, Progress)


class Line(msgspec.Struct):
    """An answer as the log has it. `number`: of the line in the input file. `row`: as the output
    file shall have it."""

    number: int
    is_ok: bool
    row: msgspec.Raw


def read_order(spool: Spool, id: str) -> Order | None:
    """None if there is none that can be read."""
    return _read(spool, id, Order) if id.startswith("batch_") and "." not in id else None


def read_progress(spool: Spool, id: str) -> Progress:
    """How far the batch is; as at its beginning, if nobody has begun it."""
    progress = _read(spool, f"{id}.state", Progress) or Progress()
    if progress.status not in OVER and spool.is_marked(f"{id}.cancel"):
        progress.enter("cancelling")
    return progress


def write_order(spool: Spool, order: Order) -> None:
    """From here on the batch exists. DiskFull, NotWritable."""
    spool.seal(order.id, [msgspec.json.encode(order)])


def write_progress(spool: Spool, id: str, progress: Progress) -> None:
    """In the place of what was written before. DiskFull, NotWritable."""
    spool.seal(f"{id}.state", [msgspec.json.encode(progress)])


def orders(spool: Spool, tenant: str | None = None) -> list[Order]:
    """All batches (of a tenant), the newest first."""
    found = [order for id in spool.names("batch_") if (order := read_order(spool, id))]
    mine = [order for order in found if tenant is None or order.tenant == tenant]
    return sorted(mine, key=lambda order: (order.created_at, order.id), reverse=True)


def forget(spool: Spool, id: str) -> None:
    """Delete all of a batch but the files that it made."""
    spool.remove(f"{id}.log", f"{id}.state", f"{id}.cancel", id)


def rows(frames: Iterator[bytes], is_ok: bool) -> Iterator[bytes]:
    """The lines of the file of answers, or of the one of errors."""
    for frame in frames:
        line = msgspec.json.decode(frame, type=Line)
        if line.is_ok == is_ok:
            yield bytes(line.row) + b"\n"


def shown(order: Order, progress: Progress) -> dict[str, Any]:
    """OpenAI's batch object."""
    errors = {"object": "list", "data": [msgspec.to_builtins(one) for one in progress.errors]}
    times = ("in_progress", "finalizing", "completed", "failed", "expired", "cancelling")
    return {
        "id": order.id,
        "object": "batch",
        "endpoint": order.endpoint,
        "errors": errors if progress.errors else None,
        "input_file_id": order.input_file_id,
        "completion_window": order.completion_window,
        "status": progress.status,
        "output_file_id": progress.output_file_id,
        "error_file_id": progress.error_file_id,
        "created_at": order.created_at,
        "expires_at": order.expires_at,
        **{f"{status}_at": progress.at.get(status) for status in (*times, "cancelled")},
        "request_counts": {
            "total": progress.total,
            "completed": progress.completed,
            "failed": progress.failed,
        },
        "metadata": order.metadata,
    }


def _read(spool: Spool, name: str, kind: type[_Record]) -> _Record | None:
    try:
        return msgspec.json.decode(spool.head(name), type=kind)
    except (NoSuchObject, msgspec.MsgspecError):
        return None
