from pathlib import Path
from typing import Annotated, Any

import pytest
import typer
from typer.core import TyperCommand

from serve.cli.flags import flag_name, merged
from serve.cli.verb import LightCommand
from serve.errors import SettingsError
from serve.settings import table
from tests.cli.conftest import Inhouse


def test_every_setting_is_a_flag_of_serve(inhouse: Inhouse) -> None:
    shown = inhouse("serve", "--help").out
    settings = [s for s in table() if s.key != "server.models" and s.key[:7] != "mirror."]
    names = {flag_name(setting) for setting in settings}
    assert [name for name in names if name not in shown] == []
    assert len(names) == len(settings), "two settings share a flag"


def test_a_bad_value_names_the_flag(home: Path) -> None:
    with pytest.raises(SettingsError) as caught:
        merged({"server.port": "70000"}, None)
    assert (caught.value.place, caught.value.key) == ("flag", "--port")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("serve", "--port", "many"), "flag: --port: "),
        (("serve", "--drain", "soon"), "flag: --drain: expected something like 30s: 'soon'"),
        (("serve", "--isolation", "of"), "flag: --isolation: "),
        (("serve", "--api-key-file", "none"), "flag: --api-key-file: cannot be read"),
        (("ls", "--config", "none.yaml"), "none.yaml: cannot be read"),
        (("srve",), "no such command 'srve'"),
        (("show",), "missing argument 'MODEL"),
        (("ls", "--jsn"), "no such option: --jsn"),
    ],
)
def test_bad_command_lines(inhouse: Inhouse, arguments: tuple[str, ...], said: str) -> None:
    ran = inhouse(*arguments)
    assert ran.code == 2
    assert ran.err.startswith("error: ") and said in ran.err
    assert "hint: " in ran.err and ran.out == ""


def test_a_typo_in_the_file_is_told_with_its_place(inhouse: Inhouse, tmp_path: Path) -> None:
    (tmp_path / "inhouse.yaml").write_text("server:\n  prot: 80\n")
    ran = inhouse("ls")
    assert ran.code == 2
    assert ran.err == (
        "error: inhouse.yaml: server.prot: is not a setting\n\nhint: did you mean server.port?\n"
    )


def test_a_key_is_read_from_a_file_and_never_shown(inhouse: Inhouse, tmp_path: Path) -> None:
    (tmp_path / "key").write_text("sk-secret\n")
    settings = merged({"server.api_key": "sk-secret"}, None)
    assert "sk-secret" not in repr(settings)
    ran = inhouse("serve", "nothing-like-it", "--api-key-file", "key")
    assert ran.code == 3 and "sk-secret" not in ran.out + ran.err


def example(
    name: Annotated[str, typer.Argument()],
    more: Annotated[list[str] | None, typer.Argument()] = None,
    text: Annotated[str | None, typer.Option()] = None,
    usual: Annotated[str, typer.Option()] = "as ever",
    texts: Annotated[list[str] | None, typer.Option()] = None,
    place: Annotated[Path | None, typer.Option()] = None,
    places: Annotated[list[Path] | None, typer.Option()] = None,
    count: Annotated[int, typer.Option(min=1)] = 4,
    is_so: Annotated[bool, typer.Option("--so")] = False,
) -> dict[str, Any]:
    return dict(locals())


def outcome(kind: type[TyperCommand], words: tuple[str, ...]) -> Any:
    alone = typer.Typer(add_completion=False)
    alone.command(cls=kind)(example)
    try:
        return typer.main.get_command(alone).main(words, "example", standalone_mode=False)
    except typer.TyperException as error:
        return type(error), error.format_message()


@pytest.mark.parametrize(
    "words",
    [
        ("a",),
        ("a", "b", "c"),
        ("",),
        ("ä", "--text", "ö", "--usual", "\udcff"),
        ("a", "--texts", "1", "--texts", "", "--so"),
        ("a", "--place", "/x", "--places", "y", "--places", "z", "--count", "2"),
        ("a", "--count", "many"),
        ("a", "--count", "0"),
        ("a", "--count=1.0"),
        ("--text", "x"),
        ("a", "--text"),
        ("a", "--so=yes"),
        ("a", "--txt", "x"),
    ],
)
def test_flags_of_text_are_read_as_typer_reads_them(words: tuple[str, ...]) -> None:
    assert outcome(LightCommand, words) == outcome(TyperCommand, words)
