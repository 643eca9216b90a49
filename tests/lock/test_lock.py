"""Whether something is what the lock says."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from serve.catalog import ModelSpec
from serve.catalog.spec import License
from serve.errors import LockMismatch
from serve.lock import Lock, LockedFile, LockedModel
from serve.lock.model import digest_of as lock_digest
from serve.sources import HubSource
from serve.store.manifest import FileRecord
from serve.store.manifest import digest_of as manifest_digest
from tests.lock.locks import HEX, models

SPEC = ModelSpec(
    "tiny", "Tiny", HubSource("org/tiny"), License("MIT", "yes"), "LlamaForCausalLM", 128, "1K"
)


def locked(model: LockedModel) -> Lock:
    """A lock of the spec, with this model's files."""
    return Lock((replace(model, name=SPEC.name, entry=SPEC.digest),))


@given(models())
def test_exactly_the_locked_files_pass(model: LockedModel) -> None:
    locked(model).check(SPEC, model.revision, reversed(model.files))


@given(models(), st.data())
def test_any_other_digit_is_refused_and_the_file_named(
    model: LockedModel, data: st.DataObject
) -> None:
    file = data.draw(st.sampled_from(model.files))
    place = data.draw(st.integers(0, 63))
    digit = data.draw(st.sampled_from(HEX).filter(lambda one: one != file.sha256[place]))
    other = replace(file, sha256=file.sha256[:place] + digit + file.sha256[place + 1 :])
    files = [other if one is file else one for one in model.files]
    with pytest.raises(LockMismatch) as caught:
        locked(model).check(SPEC, model.revision, files)
    assert (caught.value.what, caught.value.actual) == (file.path, other.sha256)


@given(models())
def test_a_file_more_or_less_is_refused(model: LockedModel) -> None:
    with pytest.raises(LockMismatch):
        locked(model).check(SPEC, model.revision, model.files[1:])
    more = (*model.files, LockedFile("zzz/extra.json", 1, "0" * 64))
    with pytest.raises(LockMismatch):
        locked(model).check(SPEC, model.revision, more)


@given(models())
def test_another_revision_entry_or_name_is_refused(model: LockedModel) -> None:
    for lock, what in (
        (Lock(), "model"),
        (Lock((replace(model, name="tiny", entry="f" * 64),)), "catalog entry"),
        (locked(replace(model, revision="f" * 40)), "revision"),
    ):
        with pytest.raises(LockMismatch) as caught:
            lock.check(SPEC, "e" * 40, model.files)
        assert (caught.value.name, caught.value.what) == ("tiny", what)


@given(models())
def test_a_manifest_and_a_lock_have_one_digest(model: LockedModel) -> None:
    records = [FileRecord(file.path, file.size, file.sha256, 1) for file in model.files]
    assert manifest_digest(records) == lock_digest(model.files) == model.digest


def test_what_another_source_gives_is_another_entry() -> None:
    from_elsewhere = SPEC.with_source(HubSource("other/tiny"))
    assert from_elsewhere.digest != SPEC.digest
    assert replace(SPEC, summary="said otherwise").digest == SPEC.digest
