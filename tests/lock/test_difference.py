"""Differences between locks: all of them, and none where there are none."""

from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from serve.lock import Lock, LockedFile, LockedModel
from serve.lock.model import digest_of
from tests.lock.locks import HEX, lock, locks, model, models


@given(locks)
def test_a_lock_does_not_differ_from_itself(any_lock: Lock) -> None:
    assert any_lock.changes_to(any_lock) == ()


@given(locks, locks)
def test_differences_seen_from_the_other_side(one: Lock, other: Lock) -> None:
    turned = {"added": "removed", "removed": "added", "changed": "changed"}
    forth, back = one.changes_to(other), other.changes_to(one)
    assert [(c.name, turned[c.what]) for c in forth] == [(c.name, c.what) for c in back]
    assert (forth == ()) == (one == other)


@given(models(), st.data())
def test_any_other_digit_of_a_file_s_hash_is_found(
    before: LockedModel, data: st.DataObject
) -> None:
    at = data.draw(st.integers(0, len(before.files) - 1))
    place = data.draw(st.integers(0, 63))
    file = before.files[at]
    digit = data.draw(st.sampled_from(HEX).filter(lambda one: one != file.sha256[place]))
    other = replace(file, sha256=file.sha256[:place] + digit + file.sha256[place + 1 :])
    files = (*before.files[:at], other, *before.files[at + 1 :])
    after = replace(before, files=files, digest=digest_of(files))
    [change] = Lock((before,)).changes_to(Lock((after,)))
    assert (change.what, change.facts) == ("changed", ())
    [changed] = change.files
    assert (changed.path, changed.old, changed.new) == (file.path, file, other)


def test_models_come_and_go() -> None:
    changes = lock("a", "b").changes_to(lock("b", "c"))
    assert [(change.name, change.what) for change in changes] == [("a", "removed"), ("c", "added")]


def test_facts_and_files_of_a_model_that_has_changed() -> None:
    gone, kept = LockedFile("gone.json", 1, "1" * 64), LockedFile("kept.json", 2, "2" * 64)
    grown, come = replace(kept, size=3), LockedFile("come.json", 4, "4" * 64)
    old = model("m", {"gone.json": gone, "kept.json": kept})
    new = replace(
        model("m", {"kept.json": grown, "come.json": come}, revision="b" * 40), license="GPL"
    )
    [change] = Lock((old,)).changes_to(Lock((new,)))
    assert [(one.fact, one.old, one.new) for one in change.facts] == [
        ("revision", "a" * 40, "b" * 40), ("license", "MIT", "GPL"),
    ]  # fmt: skip
    assert [(one.path, one.old, one.new) for one in change.files] == [
        ("come.json", None, come), ("gone.json", gone, None), ("kept.json", kept, grown),
    ]  # fmt: skip
