"""The chain: whatever is done to it by somebody without its key is found, where it was done."""

import random
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from serve.errors import AuditBroken
from serve.ledger.chain import BEGINNING, CUT, TRIM, link, read_head, sign_head, verify
from serve.ledger.records import Deed, Head, Record

KEY = bytes(32)
START = Head(0, BEGINNING)
TEXT = st.text(max_size=20)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | TEXT | st.floats(allow_nan=False,
                                                                              allow_infinity=False),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3),
    max_leaves=3,
)  # fmt: skip
ACTIONS = TEXT.filter(lambda text: text not in (CUT, TRIM))
DEEDS = st.builds(
    Deed, ACTIONS, TEXT, TEXT, TEXT, TEXT, TEXT, st.dictionaries(TEXT, JSON, max_size=2),
    st.floats(0, 2e9),
)  # fmt: skip


def chain_of(count: int, *, key: bytes = KEY) -> list[Record]:
    deeds = [
        Deed("key.create", f"k{n}", "ok", f"cli:{n % 3}", "10.0.0.1", f"r{n}", {"n": n}, 5.5 * n)
        for n in range(count)
    ]
    return list(link(key, START, deeds))


def head_of(records: list[Record]) -> Head:
    return Head(records[-1].seq, records[-1].mac)


@settings(max_examples=30)
@given(st.lists(DEEDS, max_size=3), st.lists(DEEDS, min_size=1, max_size=3))
def test_what_is_linked_is_whole(first: list[Deed], more: list[Deed]) -> None:
    records = list(link(KEY, START, first))
    records += link(KEY, head_of(records) if records else START, more)
    verdict = verify(KEY, records, head_of(records))
    assert (verdict.first, verdict.last, verdict.count) == (1, len(records), len(records))


@settings(max_examples=30)
@given(DEEDS)
def test_records_are_what_every_database_can_hold(deed: Deed) -> None:
    (record,) = link(KEY, START, [deed])
    texts = (record.actor, record.address, record.action, record.object, record.result)
    assert not any("\0" in text for text in texts)
    assert all(len(text) <= 300 for text in texts)
    "".join(texts).encode()


def other(value: Any, chance: random.Random) -> Any:
    """A value that is not this one, of the same kind."""
    match value:
        case str():
            place = chance.randrange(len(value) + 1)
            return value[:place] + chance.choice("0af:x ") + value[place:]
        case float():
            return value + chance.choice((-1.0, 1e-3, 3600.0))
        case int():
            return value + chance.choice((-1, 1, 10))
    return chance.choice(({}, {"n": -1}, {"n": str(value)}, {**value, "m": None}, None))


def edit(records: list[Record], chance: random.Random) -> int:
    place = chance.randrange(len(records))
    name = chance.choice(list(Record.__dataclass_fields__))
    records[place] = replace(records[place], **{name: other(getattr(records[place], name), chance)})
    return place


def swap(records: list[Record], chance: random.Random) -> int:
    here, there = sorted(chance.sample(range(len(records)), 2))
    records[here], records[there] = records[there], records[here]
    return here


def swap_places(records: list[Record], chance: random.Random) -> int:
    """Contents change places, numbers stay where they are."""
    here, there = sorted(chance.sample(range(len(records)), 2))
    numbers = records[here].seq, records[there].seq
    swap_in = replace(records[there], seq=numbers[0]), replace(records[here], seq=numbers[1])
    records[here], records[there] = swap_in
    return here


def remove(records: list[Record], chance: random.Random) -> int:
    place = chance.randrange(len(records))
    del records[place]
    return place


def remove_and_close_up(records: list[Record], chance: random.Random) -> int:
    """The numbers are made gapless again."""
    place = remove(records, chance)
    records[place:] = [replace(record, seq=record.seq - 1) for record in records[place:]]
    return place


def duplicate(records: list[Record], chance: random.Random) -> int:
    place = chance.randrange(len(records))
    records.insert(place, records[place])
    return place


def put_in(records: list[Record], chance: random.Random) -> int:
    """One that never was, with the numbers behind it moved on."""
    place = chance.randrange(len(records))
    made = replace(records[place], object="forged", seq=place + 1)
    records[place:] = [made, *(replace(record, seq=record.seq + 1) for record in records[place:])]
    return place


def replay(records: list[Record], chance: random.Random) -> int:
    """A record that was there, once more at the end."""
    old = chance.choice(records)
    records.append(replace(old, seq=len(records) + 1))
    return len(records) - 1


def cut(records: list[Record], chance: random.Random) -> int:
    place = chance.randrange(len(records))
    del records[place:]
    return place


def behead(records: list[Record], chance: random.Random) -> int:
    count = chance.randrange(1, len(records))
    del records[:count]
    return count


def forge(records: list[Record], chance: random.Random) -> int:
    """From somewhere on, by somebody with a key of his own."""
    place = chance.randrange(len(records))
    previous = head_of(records[:place]) if place else START
    deeds = [Deed("forged", str(n)) for n in range(len(records) - place)]
    records[place:] = link(bytes(31) + b"x", previous, deeds)
    return place


ATTACKS: tuple[Callable[[list[Record], random.Random], int], ...] = (
    edit, edit, edit, edit, swap, swap_places, remove, remove_and_close_up, duplicate, put_in,
    replay, cut, behead, forge,
)  # fmt: skip


@pytest.mark.parametrize("attack", dict.fromkeys(ATTACKS), ids=lambda attack: attack.__name__)
def test_every_attack_is_found(attack: Callable[[list[Record], random.Random], int]) -> None:
    sound = chain_of(12)
    chance = random.Random(attack.__name__)
    for _ in range(60 * ATTACKS.count(attack)):  # 840 of all kinds; some thousand with edits
        records = list(sound)
        place = attack(records, chance)
        if records == sound:
            continue
        with pytest.raises(AuditBroken) as caught:
            verify(KEY, records, head_of(sound))
        assert 0 <= caught.value.at <= place + 2, (place, caught.value)


def test_every_single_edit_is_found_at_its_record() -> None:
    sound, chance = chain_of(20), random.Random(7)
    for place, record in enumerate(sound):
        for name in Record.__dataclass_fields__:
            for _ in range(6):
                value = other(getattr(record, name), chance)
                records = [*sound[:place], replace(record, **{name: value}), *sound[place + 1 :]]
                with pytest.raises(AuditBroken) as caught:
                    verify(KEY, records, head_of(sound))
                assert abs(caught.value.at - record.seq) <= 1 or name == "seq"


def test_without_a_head_only_a_cut_end_is_not_seen() -> None:
    records = chain_of(5)
    assert verify(KEY, records[:3]).last == 3
    with pytest.raises(AuditBroken) as caught:
        verify(KEY, records[:3], head_of(records))
    assert caught.value.at == 4


def trimmed(records: list[Record], to: int) -> list[Record]:
    facts = {"from": 1, "to": to, "mac": records[to - 1].mac}
    return [*records[to:], *link(KEY, head_of(records), [Deed(TRIM, facts=facts)])]


@pytest.mark.parametrize("to", [1, 4, 9, 10])
def test_what_a_trim_removed_is_not_missed(to: int) -> None:
    records = trimmed(chain_of(10), to)
    assert verify(KEY, records, head_of(records)).first == to + 1
    assert verify(KEY, records, head_of(chain_of(10))).last == 11  # noted before the trim
    again = trimmed_again(records)
    assert verify(KEY, again, head_of(again)).last == 12


def trimmed_again(records: list[Record]) -> list[Record]:
    facts = {"to": records[0].seq, "mac": records[0].mac}
    return [*records[1:], *link(KEY, head_of(records), [Deed(TRIM, facts=facts)])]


def test_more_than_a_trim_removed_is_missed() -> None:
    records = trimmed(chain_of(10), 4)
    with pytest.raises(AuditBroken) as caught:
        verify(KEY, records[2:], head_of(records))
    assert caught.value.at == 6
    forged = replace(records[-1], facts={"to": 6, "mac": records[1].mac})
    with pytest.raises(AuditBroken):
        verify(KEY, [*records[2:-1], forged], None)


def test_a_cut_that_was_noticed_is_never_forgotten() -> None:
    records = chain_of(3)
    records += link(KEY, head_of(records), [Deed(CUT), Deed("later")])
    with pytest.raises(AuditBroken) as caught:
        verify(KEY, records, head_of(records))
    assert caught.value.at == 4


def test_a_head_is_signed() -> None:
    line = sign_head(KEY, Head(7, "ab"))
    assert read_head(KEY, line) == Head(7, "ab")
    forged = line.replace(b"7", b"6"), b"", b"{}", b"[1]", b'{"seq":1,"mac":"","code":3}', line[:-9]
    for content in forged:
        with pytest.raises(AuditBroken):
            read_head(KEY, content)
    with pytest.raises(AuditBroken):
        read_head(bytes(31) + b"x", line)


def test_nothing_is_a_whole_log() -> None:
    assert verify(KEY, []).count == 0


def test_lines_for_other_programs() -> None:
    deed = Deed("key.create", 'a"]\\\n', "refused", "cli:0", at=1.5, facts={"n": 1})
    (record,) = link(KEY, START, [deed])
    line = record.to_syslog("host name")
    assert line.startswith("<108>1 1970-01-01T00:00:01.500000Z host?name inhouse - key.create [")
    assert r'object="a\"\]\\?"' in line and line.endswith('"] {"n":1}') and "\n" not in line
    assert '"time": "1970-01-01T00:00:01.500000Z"' in record.to_json()
