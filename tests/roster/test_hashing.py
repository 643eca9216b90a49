"""Prompts as chains of hashes."""

from hypothesis import given, settings
from hypothesis import strategies as st

from serve.roster.hashing import (
    BLOCK_BYTES,
    FINE_BLOCKS,
    LONG_BLOCK_BYTES,
    bytes_in,
    chain_of,
    end_of,
    goes_on,
)

_FINE = BLOCK_BYTES * FINE_BLOCKS
_TEXT = bytes(range(256)) * 1024


def _common(one: list[int], other: list[int]) -> int:
    pairs = list(zip(one, other, strict=False))
    return next((n for n, (a, b) in enumerate(pairs) if a != b), len(pairs))


@given(
    same=st.integers(0, _FINE + 5 * LONG_BLOCK_BYTES),
    more=st.tuples(st.integers(0, 9000), st.integers(0, 9000)),
)
def test_chains_are_equal_as_far_as_prompts_are(same: int, more: tuple[int, int]) -> None:
    first = _TEXT[:same] + b"a" + b"x" * more[0] + b"]"
    other = _TEXT[:same] + b"b" + b"x" * more[1] + b"]"
    chains = chain_of(first, "m", b""), chain_of(other, "m", b"")
    shared = _common(*chains)
    assert bytes_in(shared) <= same
    if min(map(len, chains)) > shared:
        assert bytes_in(shared + 1) > same


@given(size=st.integers(0, _FINE + 5 * LONG_BLOCK_BYTES))
def test_every_whole_block_but_the_last_byte_is_in_the_chain(size: int) -> None:
    blocks = len(chain_of(_TEXT[:size], "m", b""))
    assert bytes_in(blocks) < max(size, 1)
    assert bytes_in(blocks + 1) >= size


@given(
    size=st.integers(BLOCK_BYTES + 1, _FINE + 5 * LONG_BLOCK_BYTES),
    more=st.integers(0, 9000),
    changed=st.integers(0, 5000),
)
@settings(derandomize=True)  # one pair of ends in 131,072 is taken for each other
def test_who_goes_on_where_another_one_ended_is_known(size: int, more: int, changed: int) -> None:
    first = _TEXT[: size - 1] + b"]"
    blocks = len(chain_of(first, "m", b""))
    end = end_of(first, blocks)
    assert end & 1 and end < 1 << 30
    assert goes_on(first[:-1] + b"," * more + b"]", blocks, end)
    tail = size - 1 - bytes_in(blocks)
    if changed < tail:
        place = bytes_in(blocks) + changed
        other = first[:place] + bytes([first[place] ^ 1]) + first[place + 1 :]
        assert not goes_on(other, blocks, end)
        assert not goes_on(first[:place] + b"]", blocks, end)


def test_the_next_turn_goes_on_where_this_one_closed_its_list() -> None:
    turn = b'[{"role":"user","content":"' + b"x" * (2 * BLOCK_BYTES - 29) + b'"}]'
    assert len(turn) == 2 * BLOCK_BYTES + 1
    answered = turn[:-1] + b',{"role":"assistant","content":"' + b"y" * BLOCK_BYTES + b'"}]'
    assert chain_of(answered, "m", b"")[:2] == chain_of(turn, "m", b"")


def test_models_and_salts_have_nothing_in_common() -> None:
    prompt = _TEXT[:4096]
    chains = [chain_of(prompt, *seed) for seed in (("m", b""), ("n", b""), ("m", b"s"))]
    assert len({block for chain in chains for block in chain}) == 3 * len(chains[0])


def test_equal_blocks_at_other_places_are_other_blocks() -> None:
    chain = chain_of(b"x" * 8193, "m", b"")
    assert len(chain) == 16 == len(set(chain))
