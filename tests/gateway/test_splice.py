"""Keys that we set are ours, however a client wrote them; every other byte stays."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from serve.gateway.body import read
from serve.gateway.filter import with_cache_words
from serve.gateway.salt import Salts
from tests.gateway.test_body import KEYS, VALUES, WHITE

OURS = {"model": "new", "cache_salt": "ab12", "stream_options": {"include_usage": True}}
CHANGES = {key: json.dumps(value).encode() for key, value in OURS.items()}
_NAMES = {"model": "mod\\u0065l", "cache_salt": "\\u0063ache_salt"}
_NAMES["stream_options"] = "stream\\u005Foptions"


def first_of(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """What a reader gets that takes the first of equal keys."""
    return dict(reversed(pairs))


@st.composite
def bodies(draw: st.DrawFn) -> bytes:
    """An object with a model, and the other keys of ours any number of times, however written."""
    pairs: list[tuple[str, Any]] = draw(st.lists(st.tuples(KEYS, VALUES), max_size=3))
    pairs = [pair for pair in pairs if pair[0] not in OURS]
    own = st.sampled_from([("cache_salt", "theirs"), ("stream_options", {"x": 1})])
    for pair in [("model", "old"), *draw(st.lists(own, max_size=4))]:
        pairs.insert(draw(st.integers(0, len(pairs))), pair)
    parts = []
    for key, value in pairs:
        name = json.dumps(key)
        if key in OURS and draw(st.booleans()):
            name = f'"{_NAMES[key]}"'
        parts.append(
            f"{draw(WHITE)}{name}{draw(WHITE)}:{draw(WHITE)}{json.dumps(value)}{draw(WHITE)}"
        )
    return f"{draw(WHITE)}{{{','.join(parts)}}}{draw(WHITE)}".encode()


@given(bodies(), st.sets(st.sampled_from(sorted(OURS)), min_size=1))
def test_who_reads_the_first_and_who_reads_the_last_find_ours(body: bytes, keys: set[str]) -> None:
    changed = read(body).rewritten({key: CHANGES[key] for key in keys})
    ours = {key: OURS[key] for key in keys}
    expected = json.loads(body) | ours
    assert repr(json.loads(changed)) == repr({key: expected[key] for key in json.loads(changed)})
    assert set(json.loads(changed)) == set(expected)
    first = json.loads(changed, object_pairs_hook=first_of)
    assert {key: first[key] for key in keys} == ours


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        (b'{"model":"old"}', b'{"cache_salt":"ab12","model":"new"}'),
        (b' { "model" : "old" } ', b' {"cache_salt":"ab12", "model" : "new" } '),
        (b'{"x":1e400,"model":"old"}', b'{"cache_salt":"ab12","x":1e400,"model":"new"}'),
        (b'{"cache_salt":"a","model":"old"}', b'{"cache_salt":"ab12","model":"new"}'),
        (b'{"cache_salt": null,"model":"old"}', b'{"cache_salt": "ab12","model":"new"}'),
        (
            b'{"mod\\u0065l":"old","u":"\\u0041", "y":{"model":"old","x":1}}',
            b'{"cache_salt":"ab12","mod\\u0065l":"new","u":"\\u0041", "y":{"model":"old","x":1}}',
        ),
    ],
)
def test_no_other_byte_changes(body: bytes, expected: bytes) -> None:
    changes = {key: CHANGES[key] for key in ("model", "cache_salt")}
    assert read(body).rewritten(changes) == expected


def test_an_option_of_the_client_stays_beside_ours() -> None:
    asked = read(b'{"model":"m","stream_options":{"continuous_usage_stats":true,"x":1}}')
    assert not asked.wants_usage()
    assert json.loads(asked.with_usage()) == {
        "continuous_usage_stats": True, "x": 1, "include_usage": True,
    }  # fmt: skip
    for odd in (b"null", b"7", b'"include_usage"', b'{"include_usage":false}'):
        asked = read(b'{"model":"m","stream_options":%b}' % odd)
        assert not asked.wants_usage() and json.loads(asked.with_usage()) == {"include_usage": True}
    assert read(b'{"model":"m","stream_options":{"include_usage":true}}').wants_usage()


def test_a_usage_that_is_also_in_the_text_is_changed_once() -> None:
    usage = '{"prompt_tokens": 5}'
    answer = f'{{"x": {json.dumps(usage)}, "choices": [{usage}], "usage": {usage}}}'
    told = json.loads(with_cache_words(answer.encode()))
    assert told["usage"]["prompt_cache_miss_tokens"] == 5
    assert (told["x"], told["choices"]) == (usage, [{"prompt_tokens": 5}])


def test_salts_keep_tenants_apart() -> None:
    salts, others = Salts(b"secret"), Salts(b"other")
    seen = {
        salts.of("a"), salts.of("b"), salts.of(""), salts.of("a", b'"x"'), salts.of("b", b'"x"'),
        salts.of("a", b'"y"'), salts.of("1:a"), others.of("a"), salts.of("", b"1:a"),
    }  # fmt: skip
    assert len(seen) == 9 and all(len(salt) == 64 and salt.isalnum() for salt in seen)
    assert salts.of("a") == Salts(b"secret").of("a") and salts.of("a") == salts.of("a")
    for number in range(10_000):
        salts.of(f"t{number}")
    assert len(salts._known) <= 4096
