"""Server-sent events, cut at every byte."""

from hypothesis import given
from hypothesis import strategies as st

from serve.gateway.sse import Events

STREAM = (
    b'data: {"a":1}\n\n: a comment\n\nevent: x\nid: 7\ndata: b\r\n\r\n'
    b"data:c\rdata: d\r\rdata\ndata:\n\nretry: 5\n\ndata: [DONE]\n\n"
)
DATA = [b'{"a":1}', b"b", b"c\nd", b"\n", b"[DONE]"]


def test_whole() -> None:
    assert Events().feed(STREAM) == DATA


def test_cut_in_two_at_every_byte() -> None:
    for cut in range(len(STREAM) + 1):
        events = Events()
        assert events.feed(STREAM[:cut]) + events.feed(STREAM[cut:]) == DATA, cut


def test_byte_by_byte() -> None:
    events = Events()
    found = [data for byte in STREAM for data in events.feed(bytes([byte]))]
    assert found == DATA


def test_what_has_no_end_is_no_event() -> None:
    events = Events()
    assert events.feed(b"data: a\n") == [] and events.feed(b"data: b") == []
    assert events.feed(b"\n\n") == [b"a\nb"]


_TEXT = st.binary(max_size=20).map(lambda raw: raw.translate(None, b"\r\n"))
_ENDS = st.sampled_from([b"\n", b"\r\n", b"\r"])


@given(st.lists(st.tuples(_TEXT, _ENDS, st.booleans()), max_size=8), st.data())
def test_any_events_in_any_pieces(
    written: list[tuple[bytes, bytes, bool]], data: st.DataObject
) -> None:
    stream, wanted = b"", []
    for text, end, has_comment in written:
        # A lone CR and then an LF are one end of a line, so what follows a CR begins with a word.
        stream += (b": " + text + end if has_comment else b"") + b"data: " + text + end + end
        wanted.append(text)
        if end == b"\r":
            stream += b":\n"
    events, found = Events(), []
    while stream:
        cut = data.draw(st.integers(1, len(stream)))
        found += events.feed(stream[:cut])
        stream = stream[cut:]
    assert found == wanted
