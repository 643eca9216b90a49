"""Sizes that can be read in one go, and docstrings where strangers look."""

import ast
from collections.abc import Iterator

from tests.house.rooms import LARGEST_FILE_LINES, LARGEST_FUNCTION_LINES, MOST_ARGUMENTS
from tests.house.source import ROOT, FunctionNode, Module, house, no, parsed

TESTS = parsed(ROOT / "tests")
DOORS = {module.room: module.exports() for module in house() if module.is_door}


def lines_of(module: Module) -> int:
    return len(module.path.read_text().splitlines())


def test_no_file_is_too_long() -> None:
    no(
        module.at(1, f"{lines_of(module)} lines; {LARGEST_FILE_LINES} do: find the second noun")
        for module in (*house(), *TESTS)
        if lines_of(module) > LARGEST_FILE_LINES
    )


def test_no_function_is_too_long() -> None:
    no(
        module.at(
            node.lineno, f"{node.name} has {long} lines; {LARGEST_FUNCTION_LINES} do: split it"
        )
        for module in (*house(), *TESTS)
        for node in module.functions()
        if (long := (node.end_lineno or node.lineno) - node.lineno + 1) > LARGEST_FUNCTION_LINES
    )


def test_no_function_takes_too_many_arguments() -> None:
    no(
        module.at(node.lineno, f"{node.name} takes {count} arguments; make them a value")
        for module in house()
        for node in module.functions()
        if not is_verb(module, node) and (count := arguments(node)) > MOST_ARGUMENTS
    )


def is_verb(module: Module, node: FunctionNode) -> bool:
    """A verb of the command line: its arguments are the flags that a person types."""
    return module.room == "cli" and "typer." in ast.unparse(node.args)


def arguments(node: FunctionNode) -> int:
    given = [*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs]
    return sum(argument.arg not in ("self", "cls") for argument in given)


def test_what_is_public_has_a_docstring() -> None:
    no(breach for module in house() for breach in undocumented(module))


def undocumented(module: Module) -> Iterator[str]:
    if not ast.get_docstring(module.tree):
        yield module.at(1, "a module without a docstring; say what it is for in one line")
    if module.room == "inside" or module.path.name == "__main__.py":
        return  # programs, not interfaces: nobody imports them
    for node in public(module.tree.body):
        yield from silent(module, node)
        if isinstance(node, ast.ClassDef) and is_for_strangers(module, node):
            for method in public(node.body):
                if not is_property(method):
                    yield from silent(module, method)


def is_for_strangers(module: Module, node: ast.ClassDef) -> bool:
    """Its methods are called from other rooms. A protocol's contract stands at its class."""
    is_protocol = "Protocol" in map(ast.unparse, node.bases)
    return node.name in DOORS.get(module.room, []) and not is_protocol


def public(body: list[ast.stmt]) -> Iterator[ast.ClassDef | FunctionNode]:
    for node in body:
        if isinstance(node, (ast.ClassDef, FunctionNode)) and not node.name.startswith("_"):
            yield node


def silent(module: Module, node: ast.ClassDef | FunctionNode) -> Iterator[str]:
    if not ast.get_docstring(node):
        yield module.at(
            node.lineno, f"{node.name} is public and has no docstring; give its contract"
        )


def is_property(node: ast.ClassDef | FunctionNode) -> bool:
    return "property" in map(ast.unparse, node.decorator_list)


def test_every_folder_of_tests_is_a_package() -> None:
    no(
        f"{folder.relative_to(ROOT)}: no __init__.py; two files of one name would collide"
        for folder in sorted({module.path.parent for module in TESTS})
        if not (folder / "__init__.py").exists()
    )
