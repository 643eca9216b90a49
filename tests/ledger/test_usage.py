"""Sums over requests are those of the requests, however they are grouped."""

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import delete, insert

from serve.journal import End
from serve.ledger import schema
from serve.ledger.adding import add_usage
from serve.ledger.database import Database
from serve.ledger.rows import usage_row
from serve.ledger.usage import DIMENSIONS, Dimension, Usage, Used
from tests.journal.records import end

NOON = datetime(2026, 11, 22, 12, tzinfo=UTC).timestamp()
HOUR, DAY = 3600.0, 86400.0


def put(database: Database, *ends: End, energy_j: float | None = None) -> None:
    with database.begin() as connection:
        add_usage(connection, [usage_row(each, energy_j) for each in ends])


def request(number: int, **different: Any) -> End:
    return msgspec.structs.replace(end(number, at=NOON), **different)


def test_without_requests_there_is_nothing(database: Database) -> None:
    (total,) = Usage(database).totals()
    assert (total.group, total.requests, total.cost_nanos, total.ttft_s) == ((), 0, 0, None)
    assert Usage(database).totals(["key"]) == ()
    assert Usage(database).spent(NOON).keys == {}


def test_sums_of_groups(database: Database) -> None:
    put(
        database,
        request(1),
        request(2, model="other", outcome="gone", is_estimated=True, ttft_s=1.5),
        request(3, ttft_s=None, status=499, outcome="left"),
    )
    put(database, request(4, key="k2"), energy_j=2.5)
    (all_of_them,) = Usage(database).totals()
    assert (all_of_them.requests, all_of_them.errors, all_of_them.estimated) == (4, 1, 1)
    assert all_of_them.input_tokens == 11 + 12 + 13 + 14
    assert all_of_them.cost_nanos == 4_000 + 1 + 2 + 3 + 4
    assert all_of_them.ttft_s == pytest.approx((0.5 + 1.5 + 0.5) / 3)
    assert all_of_them.energy_j == 2.5
    groups = Usage(database).totals(["key", "model"])
    assert [each.group for each in groups] == [("k1", "other"), ("k1", "tiny"), ("k2", "tiny")]
    assert [each.requests for each in groups] == [1, 2, 1]
    assert [each.energy_j for each in groups] == [None, None, 2.5]
    assert [each.group for each in Usage(database).totals(["status"])] == [("200",), ("499",)]


def test_days_and_months_are_those_of_utc(database: Database) -> None:
    midnight = datetime(2026, 12, 1, tzinfo=UTC).timestamp()
    put(database, request(1, at=midnight - 0.5), request(2, at=midnight), request(3, at=NOON))
    days = Usage(database).totals(["day"])
    assert [each.group[0] for each in days] == ["2026-11-22", "2026-11-30", "2026-12-01"]
    months = Usage(database).totals(["month"], since=NOON + 1)
    assert [(each.group[0], each.requests) for each in months] == [("2026-11", 1), ("2026-12", 1)]


def test_a_time_has_a_beginning_and_ends_before_its_end(database: Database) -> None:
    put(database, *(request(number, at=NOON + number) for number in range(5)))
    (total,) = Usage(database).totals(since=NOON + 1, until=NOON + 4)
    assert total.requests == 3


def test_what_was_spent_in_the_running_day_and_month(database: Database) -> None:
    spending = {"input_tokens": 100, "output_tokens": 10, "cost_nanos": 7}
    put(
        database,
        request(1, **spending),
        request(2, at=NOON - DAY, tenant="umbrella", **spending),
        request(3, at=NOON - 25 * DAY, **spending),
        request(4, key="", **spending),
    )
    spent = Usage(database).spent(NOON + HOUR)
    assert spent.keys == {"k1": Used((110, 7), (220, 14))}
    assert spent.tenants == {
        "acme": Used((220, 14), (220, 14)),
        "umbrella": Used((0, 0), (110, 7)),
    }
    assert spent.models == {"tiny": Used((220, 14), (330, 21))}


def test_what_is_old_is_forgotten(database: Database) -> None:
    put(database, *(request(number, at=NOON + number) for number in range(5)))
    assert Usage(database).forget(NOON + 3) == 3
    assert Usage(database).totals()[0].requests == 2


def test_keys_have_names(database: Database) -> None:
    with database.begin() as connection:
        for id, name in (("k1", "ci"), ("k2", "")):
            connection.execute(
                insert(schema.keys).values(
                    id=id, digest=id, tenant="acme", name=name, terms={}, created_at=0.0
                )
            )
    assert Usage(database).key_names() == {"k1": "ci"}


def test_large_sums_are_exact(database: Database) -> None:
    large = 10**14 + 1
    put(database, *(request(number, cost_nanos=large) for number in range(3)))
    assert Usage(database).totals()[0].cost_nanos == 3 * large


@settings(max_examples=15, suppress_health_check=list(HealthCheck), deadline=None)
@given(
    st.lists(
        st.builds(
            request, st.integers(0, 10**6), key=st.sampled_from("ab"), model=st.sampled_from("xy"),
            at=st.floats(NOON, NOON + 60 * DAY), cost_nanos=st.integers(0, 10**12),
            status=st.sampled_from([200, 500]),
        ),
        max_size=20, unique_by=lambda each: each.id,
    ),
    st.lists(st.sampled_from(DIMENSIONS), max_size=3, unique=True),
)  # fmt: skip
def test_groups_add_up(database: Database, ends: list[End], by: Sequence[Dimension]) -> None:
    with database.begin() as connection:
        connection.execute(delete(schema.usage))
    put(database, *ends)
    groups = Usage(database).totals(by)
    assert sum(each.requests for each in groups) == len(ends)
    assert sum(each.cost_nanos for each in groups) == sum(each.cost_nanos for each in ends)
    assert sorted(each.group for each in groups) == [each.group for each in groups]
    assert len({each.group for each in groups}) == len(groups)
