"""What a replica is believed to hold, against a plain model of it."""

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from serve.roster.hashing import BLOCK_BYTES
from serve.roster.index import PrefixIndex

# A chain is a path in a tree: block n of it names all of its branches so far.
_PATHS = st.lists(st.integers(0, 2), min_size=1, max_size=12)


def _chain(path: list[int]) -> list[int]:
    names, name = [], 1
    for branch in path:
        name = name * 4 + branch
        names.append(name)
    return names


def _use(index: PrefixIndex, path: list[int], last: int = 3) -> None:
    index.use(_chain(path), len(path) * BLOCK_BYTES, 2, last)


@given(st.lists(_PATHS, max_size=60), _PATHS, st.integers(0, 12))
def test_depth_is_what_a_walk_along_the_chain_finds(
    used: list[list[int]], asked: list[int], least: int
) -> None:
    index, known = PrefixIndex(1 << 20), set[int]()
    for path in used:
        _use(index, path)
        known.update(_chain(path))
    chain = _chain(asked)
    walked = next((n for n, block in enumerate(chain) if block not in known), len(chain))
    assert index.depth(chain, min(least, walked)) == walked


@given(st.lists(_PATHS, min_size=1, max_size=200), st.integers(1, 40))
def test_it_never_forgets_a_block_before_those_that_follow_it(
    used: list[list[int]], room_blocks: int
) -> None:
    index = PrefixIndex(room_blocks * BLOCK_BYTES)
    for path in used:
        _use(index, path)
        assert index.depth(_chain(path)) == len(path)
        for other in used:
            depths = [index.depth(block) for block in ([name] for name in _chain(other))]
            assert all(before >= after for before, after in pairwise(depths))


@given(st.lists(_PATHS, max_size=200), st.integers(1, 40))
def test_it_is_bounded_and_holds_the_newest(used: list[list[int]], room_blocks: int) -> None:
    index = PrefixIndex(room_blocks * BLOCK_BYTES)
    for path in used:
        _use(index, path)
        assert len(index) <= 2 * (1.5 * room_blocks + 12 + 1)
    newest, left = [], room_blocks
    for path in reversed(used):
        left -= len(path)
        if left < 0:
            break
        newest.append(path)
    assert all(index.depth(_chain(path)) == len(path) for path in newest)


def test_marks_tell_ends_of_chains() -> None:
    index = PrefixIndex(1 << 20)
    _use(index, [0, 1, 2], last=5)
    assert [index.mark(block) for block in _chain([0, 1, 2])] == [2, 2, 5]
    _use(index, [0, 1, 2, 0], last=7)
    assert [index.mark(block) for block in _chain([0, 1, 2, 0])] == [2, 2, 2, 7]


def test_a_miss_forgets_what_was_used_before_and_believes_in_less() -> None:
    index = PrefixIndex(8 * BLOCK_BYTES)
    for number in range(3):
        _use(index, [number] * 8)
    before = len(index)
    index.miss()
    assert index.depth(_chain([2] * 8)) == 8 and len(index) < before
    for _ in range(100):
        index.miss()
    for number in range(3):
        _use(index, [number] * 8)
    assert len(index) <= 16, "a generation for each chain"
    for _ in range(1000):
        index.hit()
    for number in range(3):
        _use(index, [number] * 8)
    assert len(index) >= 24
