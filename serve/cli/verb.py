"""A verb that is in the help from the start, and is imported when somebody calls it."""

from collections.abc import Callable
from functools import partial
from typing import Any

import typer
from typer.core import TyperCommand, TyperGroup

from serve.cli.late import read


class Verb(TyperCommand):
    """One row of the table: its name, its place, and its line of the help.

    The line is the first paragraph of the docstring there; a test proves it.
    """

    def __init__(self, name: str, place: str, line: str) -> None:
        super().__init__(name, help=line)
        self._place = place

    def read(self) -> TyperCommand:
        """The whole verb, with its flags; imports what it needs."""
        alone = typer.Typer(add_completion=False)
        alone.command(self.name, cls=LightCommand)(read(self._place))
        command = typer.main.get_command(alone)
        assert isinstance(command, TyperCommand)
        return command

    def make_context(self, *given: Any, **named: Any) -> Any:
        """Where a command line, a call for help or a completion comes to this verb."""
        return self.read().make_context(*given, **named)


class _Texts:
    """How typer reads a flag of text, without what it needs for all others: pydantic, whose import
    takes as long as a listing may. Where the flag is not given, it has no more to read."""

    def __init__(self, parameter: Any, usual: Callable[[], Any]) -> None:
        self._is_text = parameter.type_descriptor.annotation in (str, list[str])
        self._usual = usual

    def coerce(self, value: Any, param: Any, ctx: Any) -> Any:
        """As typer's own: the value of a flag, from what was typed."""
        is_many = param.multiple or param.nargs == -1
        if value is None:
            return () if is_many else None
        if self._is_text and is_many and _are_texts(value):
            return list(value)
        if self._is_text and not is_many and isinstance(value, str):
            return value
        return self._usual().coerce(value, param=param, ctx=ctx)


def _are_texts(value: Any) -> bool:
    return isinstance(value, list | tuple) and all(isinstance(each, str) for each in value)


def _spared(parameters: list[Any]) -> list[Any]:
    """The same ones. A typer that reads them in another way than we know never asks for this."""
    for parameter in parameters:
        usual: Any = getattr(parameter, "get_runtime_param", None)
        if hasattr(parameter, "type_descriptor") and "get_runtime_param" not in vars(parameter):
            setattr(parameter, "get_runtime_param", partial(_Texts, parameter, usual))  # noqa: B010
    return parameters


class LightCommand(TyperCommand):
    """A command that reads texts by itself."""

    def get_params(self, ctx: Any) -> list[Any]:
        """All flags and arguments, with `--help`."""
        return _spared(super().get_params(ctx))


class LightGroup(TyperGroup):
    """The same with verbs below it."""

    def get_params(self, ctx: Any) -> list[Any]:
        """All flags, with `--help`."""
        return _spared(super().get_params(ctx))


def group(name: str, line: str, *verbs: Verb) -> LightGroup:
    """Verbs that are typed after a word of their own: `inhouse engine ls`."""
    return LightGroup(name=name, help=line, commands=verbs)
