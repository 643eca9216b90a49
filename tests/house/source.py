"""The house as data: every module of `serve/` parsed once, with its imports and names."""

import ast
import functools
import os
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
SERVE = ROOT / "serve"
FunctionNode = ast.FunctionDef | ast.AsyncFunctionDef
# "serve.cli.held:ls" in a table is an import too: one that is made when it is needed.
PLACE = re.compile(r"(serve(?:\.\w+)+):(\w+)")


@dataclass(frozen=True)
class Import:
    """`from serve.engine import Child` at line 7: module "serve.engine", name "Child"."""

    module: str
    name: str | None
    line: int
    is_at_top: bool
    is_relative: bool
    is_late: bool = False  # named in a string, and imported when it is called

    @property
    def library(self) -> str:
        return self.module.split(".")[0]


@dataclass(frozen=True)
class Module:
    """One file. `inside`: its path below `serve/`, as "engine/process.py"."""

    path: Path
    tree: ast.Module

    @property
    def inside(self) -> str:
        return self.path.relative_to(SERVE).as_posix()

    @property
    def shown(self) -> str:
        return self.path.relative_to(ROOT).as_posix()

    @property
    def name(self) -> str:
        parts = self.path.relative_to(ROOT).with_suffix("").parts
        return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)

    @property
    def room(self) -> str:
        """ "engine" for all in `serve/engine/`, "units" for `serve/units.py`, "" for the top."""
        return self.name.removeprefix("serve").removeprefix(".").split(".")[0]

    @property
    def is_door(self) -> bool:
        return self.path.name == "__init__.py" and self.path.parent != SERVE

    def is_in(self, places: Iterable[str]) -> bool:
        """Whether one of `places` ("store/hub.py", "inside/") is or holds this file."""
        return any(
            self.inside == at or (at[-1] == "/" and self.inside.startswith(at)) for at in places
        )

    def at(self, line: int, breach: str) -> str:
        """A line of a failure message: where, what, and the cure."""
        return f"{self.shown}:{line}: {breach}"

    @functools.cached_property
    def imports(self) -> tuple[Import, ...]:
        return tuple(self._imports())

    def _imports(self) -> Iterator[Import]:
        top = set(map(id, self.tree.body))
        for node in ast.walk(self.tree):
            if isinstance(node, ast.Import):
                for alias in node.names:
                    yield Import(alias.name, None, node.lineno, id(node) in top, False)
            elif isinstance(node, ast.ImportFrom):
                for alias in node.names:
                    module, is_relative = node.module or "", node.level > 0
                    yield Import(module, alias.name, node.lineno, id(node) in top, is_relative)
        yield from self.places()

    def places(self) -> Iterator[Import]:
        """What a table names as "module:name", to be imported when it is needed."""
        for text, line in self.words():
            if named := PLACE.fullmatch(text):
                yield Import(named[1], named[2], line, True, False, is_late=True)

    def functions(self) -> Iterator[FunctionNode]:
        for node in ast.walk(self.tree):
            if isinstance(node, FunctionNode):
                yield node

    def exports(self) -> list[str]:
        """The literal `__all__`, or nothing."""
        for node in self.tree.body:
            if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "__all__":
                return list(ast.literal_eval(node.value))
        return []

    def names(self) -> set[str]:
        """What is bound at the top level of the file."""
        bound = {alias for node in self.tree.body for alias in _bound(node)}
        return bound | {(i.name or i.module) for i in self.imports if i.is_at_top}

    def used_names(self) -> Iterator[tuple[str, int]]:
        """Plain names and `module.attribute` pairs, with their lines. `input` is a word of
        accounting too: it is Python's own where it is called."""
        for node in ast.walk(self.tree):
            if isinstance(node, ast.Name) and node.id != "input":
                yield node.id, node.lineno
            elif isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
                yield node.func.id, node.lineno
            elif isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
                yield f"{node.value.id}.{node.attr}", node.lineno
        for item in self.imports:
            yield f"{item.module}.{item.name}", item.line

    def words(self) -> Iterator[tuple[str, int]]:
        """Every string in the code that is not a docstring, with its line."""
        told = {
            id(node.body[0].value)
            for node in ast.walk(self.tree)
            if isinstance(node, (ast.Module, ast.ClassDef, FunctionNode))
            and node.body
            and isinstance(node.body[0], ast.Expr)
        }
        for node in ast.walk(self.tree):
            if not isinstance(node, ast.Constant) or id(node) in told:
                continue
            if isinstance(node.value, str):
                yield node.value, node.lineno


def _bound(node: ast.stmt) -> Iterator[str]:
    if isinstance(node, (ast.ClassDef, FunctionNode)):
        yield node.name
    elif isinstance(node, ast.Assign):
        yield from (ast.unparse(target) for target in node.targets)
    elif isinstance(node, ast.AnnAssign):
        yield ast.unparse(node.target)


@functools.cache
def parsed(folder: Path) -> tuple[Module, ...]:
    """Every Python file below `folder`, in order."""
    paths = sorted(folder.rglob("*.py"))
    return tuple(Module(path, ast.parse(path.read_text())) for path in paths)


def house() -> tuple[Module, ...]:
    """All of `serve/`."""
    return parsed(SERVE)


@functools.cache
def project_files() -> tuple[Path, ...]:
    """Every file of the project; what .gitignore names and git's own folder are none."""
    ignored = {name.rstrip("/") for name in (ROOT / ".gitignore").read_text().split()} | {".git"}
    kept = []
    for folder, folders, files in os.walk(ROOT):
        folders[:] = sorted(set(folders) - ignored)
        kept += [Path(folder, name) for name in sorted(files)]
    return tuple(kept)


def no(breaches: Iterable[str]) -> None:
    """Fail with all breaches at once, one a line."""
    found = list(breaches)
    assert not found, "\n" + "\n".join(found)
