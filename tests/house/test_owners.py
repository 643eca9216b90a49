"""Every fact has one home."""

import ast
from collections.abc import Iterator

from tests.house.rooms import IMPORT_OWNERS, LOG_OWNERS, NAME_OWNERS, VLLM_FLAGS, VLLM_OWNERS
from tests.house.source import Module, house, no


def places(owners: tuple[str, ...]) -> str:
    return " or ".join(f"serve/{owner}" for owner in owners) or "nowhere"


def test_every_library_has_its_home() -> None:
    no(
        module.at(item.line, f"{item.library} lives in {places(owners)}; ask its owner")
        for module in house()
        for item in module.imports
        if not item.is_relative
        and (owners := IMPORT_OWNERS.get(item.library)) is not None
        and not module.is_in(owners)
    )


def test_environment_processes_and_printing_have_their_homes() -> None:
    no(
        module.at(line, f"{name} is for {places(owners)}; pass the value in, or call the owner")
        for module in house()
        for name, line in module.used_names()
        if (owners := NAME_OWNERS.get(name)) is not None and not module.is_in(owners)
    )


def test_only_programs_configure_the_log() -> None:
    no(
        module.at(item.line, f"logging is configured in {places(LOG_OWNERS)} only")
        for module in house()
        for item in module.imports
        if (item.module, item.name) == ("serve.log", "configure") and not module.is_in(LOG_OWNERS)
    )


def test_vllm_s_flags_and_variables_live_in_the_engine_room() -> None:
    no(
        module.at(line, f"{text!r} is vLLM's; say it in {places(VLLM_OWNERS)}")
        for module in house()
        if not module.is_in(VLLM_OWNERS)
        for text, line in module.words()
        if text.split("=")[0] in VLLM_FLAGS or text.startswith("VLLM_")
    )


def test_nothing_is_caught_and_swallowed() -> None:
    # Inside a runtime the plain way is taken, and said, when the fast way fails in any manner.
    no(breach for module in house() if module.room != "inside" for breach in swallowed(module))


def swallowed(module: Module) -> Iterator[str]:
    for node in ast.walk(module.tree):
        if not isinstance(node, ast.ExceptHandler):
            continue
        caught = ast.unparse(node.type) if node.type else "everything"
        is_raised = any(map(raises, ast.walk(node)))
        if node.type is None or (caught in ("Exception", "BaseException") and not is_raised):
            yield module.at(node.lineno, f"catches {caught}; name what can happen, or raise it on")


def raises(node: ast.AST) -> bool:
    """`raise`, or handing the error to a future, which raises it where it is awaited."""
    is_handed_on = isinstance(node, ast.Attribute) and node.attr == "set_exception"
    return isinstance(node, ast.Raise) or is_handed_on


def test_assert_only_tells_the_type_checker() -> None:
    no(
        module.at(node.lineno, "assert on a value; raise an error of serve.errors instead")
        for module in house()
        for node in ast.walk(module.tree)
        if isinstance(node, ast.Assert) and not narrows(node.test)
    )


def narrows(test: ast.expr) -> bool:
    if isinstance(test, ast.BoolOp):
        return all(map(narrows, test.values))
    text = ast.unparse(test)
    return text.startswith(("isinstance(", "issubclass(")) or text.endswith(" is not None")
