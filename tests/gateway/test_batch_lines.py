"""What a batch's lines may be, and what its answers look like."""

import json
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from serve.errors import ModelNotServed
from serve.gateway import batch_lines as lines

CHAT = "/v1/chat/completions"


def line(id: str = "a", **more: Any) -> bytes:
    row = {"custom_id": id, "method": "POST", "url": CHAT, "body": {"model": "m"}} | more
    return json.dumps(row).encode()


@given(st.binary(), st.lists(st.integers(0, 30), max_size=5))
def test_lines_from_pieces(text: bytes, cuts: list[int]) -> None:
    ends = sorted({min(cut, len(text)) for cut in cuts} | {len(text)})
    pieces = [text[start:end] for start, end in zip([0, *ends], ends, strict=False)]
    assert list(lines.split(pieces)) == text.split(b"\n")


def test_a_good_input() -> None:
    text = [line("a"), b"", line("b"), b"  "]
    assert lines.check(text, CHAT) == (2, [])
    read = list(lines.read(text))
    assert [(number, ask.custom_id) for number, ask in read] == [(1, "a"), (3, "b")]
    assert bytes(read[0][1].body) == b'{"model": "m"}'


def test_faults_name_their_line_and_not_its_content() -> None:
    text = [
        line("a"), line("a"), b"{secret", line("b", method="GET"), line("c", url="/secret"),
        line("d", body=["secret"]), line("e", body={"stream": True}), b'["secret"]', b"\xff",
        line("x" * 600),
    ]  # fmt: skip
    count, faults = lines.check(text, CHAT)
    assert count == 10 and [fault.line for fault in faults] == [2, 3, 4, 5, 6, 7, 8, 9, 10]
    assert {fault.code for fault in faults} == {
        "duplicate_custom_id", "invalid_json_line", "invalid_method", "mismatched_url",
        "invalid_request",
    }  # fmt: skip
    assert "secret" not in repr(faults)


def test_empty_and_too_long_inputs_are_refused() -> None:
    assert lines.check([b"", b" "], CHAT)[1][0].code == "empty_file"
    many = (line(str(number)) for number in range(lines.MOST_LINES + 5))
    assert [fault.code for fault in lines.check(many, CHAT)[1]] == ["too_many_requests"]
    assert len(lines.check([b"x"] * 500, CHAT)[1]) == 100


def test_answers() -> None:
    ((number, ask),) = lines.read([line("mine")])
    good = lines.answered(number, ask, "id-1", 200, b'{ "a":\n 1.50 }')
    assert good.is_ok and bytes(good.row) == (
        b'{"id":"batch_req_id-1","custom_id":"mine","response":{"status_code":200,'
        b'"request_id":"id-1","body":{"a":1.50}},"error":null}'
    )
    odd = json.loads(bytes(lines.answered(number, ask, "id-2", 500, b"<html>\xff").row))
    assert odd["response"]["body"] == "<html>\ufffd" and odd["response"]["status_code"] == 500
    refused = lines.refused(number, ask, "id-3", ModelNotServed("m"))
    body = json.loads(bytes(refused.row))["response"]
    assert not refused.is_ok and body["status_code"] == 404
    assert body["body"]["error"]["code"] == "model_not_found"
    late = json.loads(bytes(lines.not_asked(number, ask, "id-4", "batch_expired", "Late.").row))
    assert late["response"] is None
    assert late["error"] == {"code": "batch_expired", "message": "Late."}
