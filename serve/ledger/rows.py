"""What becomes of a record in the ledger's tables. Pure.

A journal holds what gateways were told by clients and engines; a table takes only what fits.
"""

import math
from collections.abc import Callable, Sequence
from typing import Any

import msgspec
from sqlalchemy import BigInteger, Float, Integer, String

from serve.journal import End, Start
from serve.ledger.schema import usage
from serve.quota import Price

_LONGEST_ADDRESS = 64  # of a client, as the audit log has it
_LONGEST_ID = 128
# What an engine claims may be nonsense; the sum of many such rows is still a number of 64 bits.
_LARGEST = {BigInteger: 10**15, Integer: 2**31 - 1}


def usage_row(record: End, energy_j: float | None) -> dict[str, Any]:
    """One row of `usage`."""
    return _fitting(msgspec.structs.asdict(record) | {"energy_j": energy_j})


def open_row(record: Start, segment: str) -> dict[str, Any]:
    """One row of `open_requests`."""
    row = _fitting(msgspec.structs.asdict(record))
    kept = {
        "tokens": _whole(record.tokens, _LARGEST[BigInteger]),
        "slot": record.slot,
        "client": _text(record.client, _LONGEST_ADDRESS),
    }
    return {"id": row["id"], "segment": segment, "record": row | kept}


def crashed(row: dict[str, Any], chunks: Sequence[int], price: Price) -> End:
    """The end of a request whose gateway is gone: `row` is `open_row`'s record, `chunks` how many
    events of answers were passed on, by place in the flight table.

    An event of a stream stands for a token, as engines send them.
    """
    start = Start(**row)
    tokens = chunks[start.slot] if 0 < start.slot < len(chunks) else 0
    return End(
        start.id, start.at, start.key, start.tenant, start.model, start.route, "", 0, "crashed",
        input_tokens=start.tokens, output_tokens=tokens, is_estimated=True,
        cost_nanos=price.cost(start.tokens, 0, tokens), client=start.client,
    )  # fmt: skip


def row_id(id: str) -> str:
    """By what the tables know the request that calls itself so."""
    return _text(id, _LONGEST_ID)


def _fitting(values: dict[str, Any]) -> dict[str, Any]:
    return {name: fit(values[name]) for name, fit in _FITS if name in values}


def _fit(column: Any) -> Callable[[Any], Any]:
    kind = column.type
    if isinstance(kind, String):
        room = kind.length or 0
        return lambda value: _text(value, room)
    if isinstance(kind, BigInteger | Integer):
        most = _LARGEST[BigInteger if isinstance(kind, BigInteger) else Integer]
        return lambda value: _whole(value, most)
    if isinstance(kind, Float):
        return _finite
    return lambda value: value


def _text(value: str, room: int) -> str:
    return value if len(value) <= room and "\0" not in value else value.replace("\0", "")[:room]


def _whole(value: int, most: int) -> int:
    return value if -most <= value <= most else most if value > 0 else -most


def _finite(value: float | None) -> float | None:
    return value if value is None or math.isfinite(value) else 0.0


_FITS = tuple((column.name, _fit(column)) for column in usage.columns)
