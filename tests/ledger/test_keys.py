"""The book of keys: what is changed is in the audit log, and a key's text is nowhere."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from serve.errors import AuditBroken, SettingsError, UnknownKey
from serve.ledger.audit import AuditLog
from serve.ledger.database import Database
from serve.ledger.key_text import id_in, make_key_text
from serve.ledger.keys import KeyBook
from serve.ledger.records import Deed
from serve.ledger.schema import usage
from serve.quota import Key, Keyring, Limits, digest_key

BY = Deed(actor="cli:7", address="10.0.0.1", request="r1")
TERMS = Key(
    "", "", "research", "bob", ("inference", "metrics"), ("qwen*",),
    Limits(rpm=5, nanos_per_day=10**12), 5000.0, "batch",
)  # fmt: skip


class Clock:
    """Stands still until it is told otherwise."""

    now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def log(database: Database, tmp_path: Path, clock: Clock) -> AuditLog:
    return AuditLog(database, tmp_path / "ledger", clock)


@pytest.fixture
def book(database: Database, log: AuditLog, clock: Clock) -> KeyBook:
    return KeyBook(database, log, clock)


def actions(log: AuditLog) -> list[str]:
    return [record.action for record in log.records()]


def test_a_key_is_what_was_wanted(book: KeyBook, log: AuditLog) -> None:
    issued = book.create(TERMS, BY)
    record = book.find(issued.record.key.id)
    assert record == issued.record
    key = record.key
    assert key == Key(key.id, digest_key(issued.text), *(getattr(TERMS, name) for name in FIELDS))
    assert book.active() == (key,) and Keyring(book.active()).find(issued.text.encode()) == key
    (said,) = log.records()
    assert (said.actor, said.address, said.request, said.object) == (
        "cli:7", "10.0.0.1", "r1", key.id,
    )  # fmt: skip
    assert said.facts["limits"] == {"rpm": 5, "nanos_per_day": 10**12}
    assert log.verify().count == 1


FIELDS = ("tenant", "name", "scopes", "models", "limits", "expires_at", "priority")


def test_a_revoked_key_is_out_for_ever(book: KeyBook, log: AuditLog) -> None:
    issued = book.create(TERMS, BY)
    for _ in range(2):
        assert book.revoke(issued.record.key.id, BY).state(1000.0) == "revoked"
    assert book.active() == () and len(book.all()) == 1
    assert actions(log) == ["key.create", "key.revoke"]
    with pytest.raises(SettingsError):
        book.rotate(issued.record.key.id, 5, BY)
    with pytest.raises(UnknownKey):
        book.find("bob")  # by its name only what still counts is found


def test_a_rotation_overlaps(book: KeyBook, log: AuditLog, clock: Clock) -> None:
    old = book.create(TERMS, BY)
    new = book.rotate("bob", 60, BY)
    assert new.text != old.text
    assert new.record.key.expires_at == 5000.0 and new.record.key.limits == TERMS.limits
    assert {record.state(clock.now) for record in book.all()} == {"rotated", "active"}
    assert {key.id for key in book.active()} == {old.record.key.id, new.record.key.id}
    assert {record.state(clock.now) for record in book.all()} == {"rotated", "active"}
    assert book.find("bob") == new.record
    assert book.find(old.record.key.id).replaced_by == new.record.key.id
    clock.now += 60
    assert {key.id for key in book.active()} == {new.record.key.id}
    assert actions(log) == ["key.create", "key.rotate"]
    with pytest.raises(SettingsError) as caught:
        book.rotate(old.record.key.id, 60, BY)
    assert caught.value.suggestion == f"its successor is {new.record.key.id}"


def test_what_is_known_of_keys_follows_their_changes(book: KeyBook, clock: Clock) -> None:
    issued = [book.create(replace(TERMS, name=f"n{n}"), BY) for n in range(5)]
    ids = [each.record.key.id for each in issued]
    assert set(book.active()) == {each.record.key for each in issued}
    book.revoke(ids[0], BY)
    new = book.rotate(ids[1], 60, BY)
    active = {key.id: key for key in book.active()}
    assert set(active) == {*ids[1:], new.record.key.id}
    assert active[ids[1]].expires_at == clock.now + 60 and active[ids[2]].expires_at == 5000.0
    clock.now += 60
    assert {key.id for key in book.active()} == {*ids[2:], new.record.key.id}
    clock.now = 5000.0
    assert book.active() == ()


def test_an_overlap_makes_no_key_live_longer(book: KeyBook) -> None:
    old = book.create(TERMS, BY)
    book.rotate("bob", 1e9, BY)
    assert book.find(old.record.key.id).key.expires_at == 5000.0


def test_an_expired_key_opens_nothing(book: KeyBook, clock: Clock) -> None:
    issued = book.create(TERMS, BY)
    clock.now = 5000.0
    assert book.active() == ()
    assert book.find(issued.record.key.id).state(clock.now) == "expired"
    with pytest.raises(SettingsError):
        book.rotate(issued.record.key.id, 60, BY)


NO_TERMS = (
    Key("", "", ""), Key("", "", " "), Key("", "", "t" * 201), Key("", "", "t\n"),
    Key("", "", "t", scopes=()), Key("", "", "t", expires_at=1000.0),
    Key("", "", "t", expires_at=1e15), Key("", "", "t", models=("a\0",)),
    Key("", "", "t", "\x1b[31m"),
)  # fmt: skip


def test_terms_that_are_none_are_refused(book: KeyBook, log: AuditLog) -> None:
    for terms in NO_TERMS:
        with pytest.raises(SettingsError):
            book.create(terms, BY)
    assert book.all() == () and actions(log) == []


def test_strangers_are_not_found_but_near_ones_named(book: KeyBook) -> None:
    first, second = book.create(TERMS, BY), book.create(TERMS, BY)
    with pytest.raises(UnknownKey) as caught:
        book.find("bob")
    assert set(caught.value.near) == {first.record.key.id, second.record.key.id}
    with pytest.raises(UnknownKey) as caught:
        book.find("bop")
    assert "bob" in caught.value.near
    for name in ("", "x' OR '1'='1", "%", "k" * 100_000):
        with pytest.raises(UnknownKey):
            book.find(name)


def test_every_change_changes_the_version(book: KeyBook, opened: Callable[[], Database]) -> None:
    seen = [book.version()]
    assert seen == [(0, 0, 0)]
    issued = book.create(TERMS, BY)
    seen.append(book.version())
    new = book.rotate(issued.record.key.id, 60, BY)
    seen.append(book.version())
    book.revoke(new.record.key.id, BY)
    seen.append(book.version())
    assert len(set(seen)) == 4 and seen == sorted(seen)
    other = opened()
    assert KeyBook(other, AuditLog(other, Path("/nowhere"))).version() == seen[-1]


def test_what_cannot_be_recorded_is_not_done(
    book: KeyBook, database: Database, log: AuditLog, tmp_path: Path
) -> None:
    issued = book.create(TERMS, BY)
    (tmp_path / "ledger" / "audit.key").unlink()
    id = issued.record.key.id
    for act in (
        lambda: book.create(TERMS, BY), lambda: book.revoke(id, BY), lambda: book.rotate(id, 1, BY)
    ):  # fmt: skip
        with pytest.raises(AuditBroken):
            act()
    assert book.all() == (issued.record,)


def test_the_last_use_is_told(book: KeyBook, database: Database) -> None:
    issued = book.create(TERMS, BY)
    row: dict[str, Any] = {column.name: 0 for column in usage.columns if not column.nullable}
    texts = ("tenant", "model", "route", "replica", "outcome")
    row |= dict.fromkeys(texts, "x") | {"is_estimated": False, "key": issued.record.key.id}
    with database.begin() as connection:
        connection.execute(usage.insert(), [row | {"id": str(n), "at": n} for n in range(5)])
    assert [record.used_at for record in book.all(is_with_use=True)] == [4.0]
    assert [record.used_at for record in book.all()] == [None]


def test_the_text_of_a_key_is_nowhere(book: KeyBook, log: AuditLog, tmp_path: Path) -> None:
    issued = [book.create(TERMS, BY) for _ in range(20)]
    issued.append(book.rotate(issued[0].record.key.id, 5, BY))
    secrets = [each.text.rpartition("-")[2].encode() for each in issued]
    shown = json.dumps([book.card(record) for record in book.all()]) + repr(issued)
    shown += "".join(record.to_json() for record in log.records())
    kept = [file.read_bytes() for file in tmp_path.rglob("*") if file.is_file()]
    for content in (shown.encode(), *kept):
        assert not any(secret in content for secret in secrets)
    assert digest_key(issued[0].text) not in shown.replace(repr(issued), "")


def test_a_text_is_found_again(book: KeyBook) -> None:
    issued = book.create(TERMS, BY)
    assert book.find_text(issued.text) == issued.record
    with pytest.raises(UnknownKey):
        book.find_text(make_key_text().text)
    for text in ("", issued.text[:-1], issued.text + "x", "ih-x-y", issued.text.upper()):
        with pytest.raises(SettingsError) as caught:
            book.find_text(text)
        assert not text or text not in str(caught.value)


@settings(max_examples=200)
@given(st.integers(0, 66), st.sampled_from("abcXYZ019-_é"))
def test_a_typo_is_told_from_a_stranger(place: int, letter: str) -> None:
    id, text = make_key_text()
    assert id_in(text) == id and len(text) == 63
    place %= len(text)
    mistyped = text[:place] + letter + text[place + 1 :]
    swapped = text[:place] + text[place : place + 2][::-1] + text[place + 2 :]
    for wrong in {mistyped, swapped, text[:place], text + letter} - {text}:
        with pytest.raises(SettingsError) as caught:
            id_in(wrong)
        assert text[-49:] not in str(caught.value)


def test_texts_are_of_256_bits() -> None:
    texts = {make_key_text().text for _ in range(500)}
    assert len(texts) == 500
    letters = [text[14 + n] for text in texts for n in range(1, 40)]
    assert len(set(letters)) == 62
