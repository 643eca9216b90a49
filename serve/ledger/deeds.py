"""What the audit log says of requests, from what the journal says. Pure."""

from serve.journal import End, Refusal
from serve.ledger.records import Deed

REFUSED, DONE = "request.refuse", "request"


def deed_of(record: Refusal | End) -> Deed:
    """The request as an audit record: who, what, from where, how it ended."""
    actor = f"key:{record.key}" if record.key else "nobody"
    facts: dict[str, object] = {"status": record.status, "tenant": record.tenant}
    if isinstance(record, Refusal):
        return Deed(REFUSED, record.route, record.code, actor, record.client, record.id, facts,
                    record.at)  # fmt: skip
    names = ("route", "replica", "input_tokens", "cached_tokens", "output_tokens", "duration_s")
    facts |= {name: getattr(record, name) for name in names}
    return Deed(
        DONE, record.model, record.outcome, actor, record.client, record.id, facts, record.at
    )
