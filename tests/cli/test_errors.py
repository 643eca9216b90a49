import dataclasses
import typing
from typing import Any

import pytest

from serve import errors
from serve.cli import output
from serve.cli.errors import TABLE, tell

SAMPLES: dict[Any, Any] = {str: "x", int: 3, float: 3.0, bool: True}


def an(kind: type[errors.InhouseError], is_bare: bool) -> errors.InhouseError:
    """One error of this kind; `is_bare`: all that may be None or empty is so."""
    hints = typing.get_type_hints(kind)
    facts: dict[str, Any] = {}
    for field in dataclasses.fields(kind):
        hint = hints[field.name]
        options = [part for part in typing.get_args(hint) or (hint,) if part is not type(None)]
        if field.name == "near":
            facts[field.name] = () if is_bare else ("one", "two")
        elif field.name == "parts":
            facts[field.name] = () if is_bare else (("weights", 2**30),)
        elif field.name == "cures":
            facts[field.name] = () if is_bare else (("fewer sequences", "they wait longer"),)
        elif is_bare and type(None) in typing.get_args(hint):
            facts[field.name] = None
        else:
            facts[field.name] = SAMPLES[options[0]]
    return kind(**facts)


@pytest.mark.parametrize("kind", errors.leaves(), ids=lambda kind: kind.__name__)
@pytest.mark.parametrize("is_bare", [True, False])
def test_every_error_is_told(kind: type[errors.InhouseError], is_bare: bool) -> None:
    told = tell(an(kind, is_bare))
    assert told.sentence and not told.sentence.endswith((".", "!"))
    assert "None" not in f"{told.sentence} {told.hint or ''}"
    assert told.hint is None or (told.hint and not told.hint.endswith("."))
    assert told.exit_code in range(2, 9)


def test_the_table_holds_nothing_else() -> None:
    assert set(TABLE) == set(errors.leaves())


def test_an_error_is_printed_as_sentence_and_hint(capsys: pytest.CaptureFixture[str]) -> None:
    code = output.show_error(errors.UnknownModel("qwen9", ("qwen3-8b", "qwen2-7b")))
    said = capsys.readouterr()
    assert code == 3
    assert said.out == ""
    assert said.err == ("error: no such model: qwen9\n\nhint: did you mean qwen3-8b or qwen2-7b?\n")


def test_a_refusal_shows_the_ways_out() -> None:
    cures = (("KV cache in fp8", "slight loss of quality"), ("2 x L40S", "1 more card"))
    error = errors.DoesNotFit("m", "cuda", 2, 1, (), "lower engine.context", cures)
    assert tell(error).sentence.splitlines()[1:] == [
        "  it would fit with KV cache in fp8: slight loss of quality",
        "  it would fit with 2 x L40S: 1 more card",
    ]


def test_a_cache_that_is_told_to_be_too_small_is_not_told_as_a_lack_of_memory() -> None:
    error = errors.DoesNotFit("m", "cpu", 2**30, 2**33, (), "raise engine.kv_cache")
    assert "there is room for the 1.0 GiB that it needs" in tell(error).sentence


def test_the_sum_of_a_plan_is_shown() -> None:
    parts = (("weights", 16 * 2**30), ("KV cache", 2**30))
    error = errors.DoesNotFit("m", "GPU 0", 17 * 2**30, 8 * 2**30, parts, "--context 4096")
    told = tell(error)
    assert told.sentence.splitlines() == [
        "m does not fit on GPU 0: needs 17.0 GiB, free 8.0 GiB",
        "    16.0 GiB  weights",
        "     1.0 GiB  KV cache",
    ]
    assert told.hint == "--context 4096"
