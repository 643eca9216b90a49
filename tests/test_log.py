import logging
import re
from collections.abc import Iterator

import pytest

from serve import log


@pytest.fixture(autouse=True)
def root_as_it_was() -> Iterator[None]:
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    root.handlers[:] = handlers
    root.setLevel(level)


def test_a_line_has_time_level_process_and_message(capsys: pytest.CaptureFixture[str]) -> None:
    log.configure("info", "gateway")
    logging.getLogger("serve.x").info("engine ready %s", log.fields(model="m", ready_after_s=1.5))
    assert re.fullmatch(
        r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z INFO    gateway: engine ready"
        r" model=m ready_after_s=1\.5\n",
        capsys.readouterr().err,
    )


def test_what_is_below_the_level_is_not_shown(capsys: pytest.CaptureFixture[str]) -> None:
    log.configure("warning", "supervisor")
    logging.getLogger("serve.x").info("no")
    logging.getLogger("serve.x").warning("yes")
    told = capsys.readouterr().err
    assert "no" not in told
    assert "yes" in told


def test_chatty_libraries_are_quiet_even_when_we_debug(capsys: pytest.CaptureFixture[str]) -> None:
    log.configure("debug", "cli")
    logging.getLogger("httpx").info("HTTP Request: GET /secret")
    logging.getLogger("serve.x").debug("ours")
    told = capsys.readouterr().err
    assert "secret" not in told
    assert "ours" in told


def test_configuring_twice_does_not_say_it_twice(capsys: pytest.CaptureFixture[str]) -> None:
    log.configure("info", "cli")
    log.configure("info", "cli")
    logging.getLogger("serve.x").info("once")
    assert capsys.readouterr().err.count("once") == 1


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ("qwen3-8b", "qwen3-8b"),
        (12, "12"),
        (None, "None"),
        ("/a/b.log", "/a/b.log"),
        ("two words", '"two words"'),
        ("", '""'),
        ("x\n2026-01-01 ERROR forged", r'"x\n2026-01-01 ERROR forged"'),
        ("a key=b", '"a key=b"'),
        ("k=v", '"k=v"'),
        ('quote"', r'"quote\""'),
        ("\x1b[31mred", r'"\u001b[31mred"'),
    ],
)
def test_a_value_cannot_forge_a_line_or_a_field(value: object, text: str) -> None:
    assert log.fields(value=value) == f"value={text}"


def test_fields_keep_their_order() -> None:
    assert log.fields(b=1, a=2) == "b=1 a=2"
