"""A few kills of the campaign `gateway-kills` (scripts/campaign runs it in full)."""

from pathlib import Path

import pytest

from tests.campaigns import gateway_kills
from tests.campaigns.gateway_kills import Variant
from tests.stack.agreement import Accounts, Served, disagreements
from tests.stack.client import Seen

_WHOLE = {"outcome": "ok", "is_estimated": 0, "input_tokens": 6, "output_tokens": 2}
_CUT = _WHOLE | {"outcome": "crashed", "is_estimated": 1, "output_tokens": 1}
_USAGE = b'{"usage": {"prompt_tokens": 6, "completion_tokens": 2}}'
_SEEN = Seen("u", 200, "a-1", {}, _USAGE, is_ended=True)
_DONE = Served("u", 6, 2, True, 1)


@pytest.mark.timeout(240)
def test_four_accounts_agree_after_kills(tmp_path: Path) -> None:
    report = gateway_kills.run(4, 1, tmp_path, print, requests=200)
    assert report.total == 800 and report.failures == []
    assert sum(n for (_, outcome), n in report.trials.items() if outcome == "ok") > 500


@pytest.mark.timeout(240)
@pytest.mark.parametrize(
    "variant", [Variant(commit="each"), Variant(ledger="postgresql")], ids=Variant.flags
)
def test_they_agree_however_the_books_are_kept(tmp_path: Path, variant: Variant) -> None:
    report = gateway_kills.run(2, 1, tmp_path, print, 200, variant)  # a gateway, the supervisor
    assert report.total == 400 and report.failures == []


@pytest.mark.parametrize(
    ("seen", "rows", "served", "problem"),
    [
        ([_SEEN], {}, {}, "a-1: answered, and not in the books"),
        ([_SEEN], {}, {"a-1": _DONE}, "a-1: served, and not in the books"),
        ([_SEEN], {"a-1": _CUT}, {"a-1": _DONE}, "its client has all of it"),
        ([_SEEN], {"a-1": _WHOLE | {"output_tokens": 3}}, {"a-1": _DONE}, "was told (6, 2)"),
        ([_SEEN], {"a-1": _WHOLE}, {}, "no engine came to its end"),
        ([_SEEN], {"a-1": _WHOLE}, {"a-1": Served("u", 6, 2, True, 2)}, "sent 2 times"),
        ([_SEEN, _SEEN], {"a-1": _WHOLE}, {"a-1": _DONE}, "shown to 2 clients"),
        ([_SEEN], {"a-1": _WHOLE, "a-1~1": _WHOLE}, {"a-1": _DONE}, "another request had its id"),
        ([], {"a-1": _CUT | {"output_tokens": 9}}, {"a-1": _DONE}, "9 are charged"),
        ([], {"a-1": _CUT}, {}, "0 were made, 1 are charged"),
    ],
)
def test_what_does_not_agree_is_told(
    seen: list[Seen], rows: dict[str, dict[str, object]], served: dict[str, Served], problem: str
) -> None:
    assert any(problem in told for told in disagreements(seen, Accounts(rows, served, {})))
    good = Accounts({"a-1": _WHOLE}, {"a-1": _DONE}, {"key k": (8, 8)})
    assert disagreements([_SEEN], good) == []


@pytest.mark.parametrize(
    ("here", "killed", "is_good"), [(8, 0, 1), (7, 2, 0), (20, 0, 0), (20, 1, 1)]
)
def test_limits_may_be_ahead_by_a_request_and_never_behind(
    here: int, killed: int, is_good: bool
) -> None:
    of = Accounts({}, {}, {"key k": (here, 8)})
    assert (disagreements([], of, killed) == []) == is_good
