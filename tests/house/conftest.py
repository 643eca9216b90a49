"""Says the sizes of the house at the end of a run."""

import statistics

import pytest

from tests.house.source import house


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """One line: files, lines and the medians."""
    files = [len(module.path.read_text().splitlines()) for module in house()]
    functions = [
        (node.end_lineno or node.lineno) - node.lineno + 1
        for module in house()
        for node in module.functions()
    ]
    terminalreporter.write_line(
        f"house: {len(files)} files, {sum(files)} lines; median file "
        f"{statistics.median(files):.0f}, median function {statistics.median(functions):.0f}"
    )
