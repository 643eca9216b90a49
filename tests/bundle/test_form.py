"""Pure parts: how pieces are spread, and that a manifest is read as it was written."""

import hashlib

from hypothesis import given
from hypothesis import strategies as st

from serve.bundle.form import (
    BundledFile,
    BundledModel,
    Facts,
    Form,
    contents_of,
    id_of,
    parse,
    to_bytes,
)
from serve.bundle.spread import head_bytes, part_bytes, spread
from serve.errors import SettingsError

FACTS = Facts("tiny", "TinyForCausalLM", 128, "1K", "yes")


def form_of(sizes: list[int], piece_bytes: int = 4096) -> Form:
    files = tuple(
        BundledFile(f"f{n}", size, hashlib.sha256(f"{n}".encode()).hexdigest())
        for n, size in enumerate(sizes)
    )
    model = BundledModel("tiny", "dir", "/m", "", "0" * 64, "mit", "0" * 64, "0" * 64, FACTS, files)
    return Form(1, "inhouse", 1, piece_bytes, (model,), contents_of((model,), piece_bytes), ())


@given(
    st.lists(st.integers(0, 100_000), min_size=1, max_size=20), st.integers(0, 10**6),
    st.lists(st.integers(0, 2000), max_size=2),
)  # fmt: skip
def test_parts_hold_everything_and_are_smaller_than_asked(
    sizes: list[int], max_bytes: int, more: list[int]
) -> None:
    form = form_of(sizes)
    try:
        form = spread(form, more, max_bytes)
    except SettingsError:
        assert head_bytes(form, more) + 4096 + 512 + 1024 >= max_bytes - 600
        return
    numbers = range(1, len(form.parts) + 1)
    lengths = [part_bytes(form, head_bytes(form, more), number) for number in numbers]
    assert all(length < max_bytes for length in lengths)
    assert sum(form.parts) == len(list(form.pieces()))
    assert parse(to_bytes(form)) == form


@given(st.lists(st.integers(0, 50_000), min_size=1, max_size=10))
def test_pieces_cover_every_content_once(sizes: list[int]) -> None:
    form = spread(form_of(sizes), [], None)
    pieces = list(form.pieces())
    assert [piece.number for piece in pieces] == list(range(len(pieces)))
    for content in form.contents:
        mine = [piece for piece in pieces if piece.content == content.sha256]
        end = 0
        for piece in mine:
            assert piece.offset == end and 0 < piece.size <= form.piece_bytes
            end += piece.size
        assert end == content.size


def test_a_fat32_stick_takes_every_part() -> None:
    gib = 2**30
    form = spread(form_of([9 * gib, 3 * gib], 16 * 2**20), [179], 4 * gib)
    head = head_bytes(form, [179])
    lengths = [part_bytes(form, head, number) for number in range(1, len(form.parts) + 1)]
    assert len(lengths) == 4 and max(lengths) <= 2**32 - 1


def test_a_model_of_a_terabyte_has_a_small_manifest() -> None:
    form = spread(form_of([5 * 2**30] * 200, 16 * 2**20), [], None)
    assert len(to_bytes(form)) < 6 * 2**20


@given(st.binary(max_size=200))
def test_anything_else_is_refused(content: bytes) -> None:
    try:
        parse(content)
    except ValueError:
        return
    raise AssertionError(content)


def test_the_id_is_the_manifest_s_hash() -> None:
    manifest = to_bytes(spread(form_of([1]), [], None))
    assert id_of(manifest) == hashlib.sha256(manifest).hexdigest()
