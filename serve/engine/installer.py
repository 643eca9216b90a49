"""Filling a virtual environment from a lock with uv, by the rules that pip was given."""

import ast
import sys
from collections.abc import Callable
from pathlib import Path

import uv

from serve.engine.process import run

# The builds of torch for the CPU are not on PyPI but on the PyTorch project's own index.
_TORCH_CPU = (
    "--extra-index-url",
    "https://download.pytorch.org/whl/cpu",
    "--index-strategy",
    "unsafe-best-match",
)
_PIP_TO_UV = {
    "index-url": "--default-index",
    "extra-index-url": "--extra-index-url",
    "find-links": "--find-links",
    "trusted-host": "--allow-insecure-host",
}


def fill(place: Path, lock_file: Path, report: Callable[[str], None]) -> str | None:
    """Make a virtual environment of this Python's version at `place` with what `lock_file` names.

    The problem in one line, or None. Lines of progress go to `report`.
    """
    tool = uv.find_uv_bin()
    code, output = run([tool, "venv", "--no-config", "-p", sys.executable, str(place)])
    if code != 0:
        return _reason(output)
    install = [tool, "pip", "install", "--no-deps", "-p", str(place / "bin" / "python")]
    install += ["-r", str(lock_file), *_sources()]
    code, output = run(install, on_line=report)
    if code != 0 and _lacks_torch(output):
        report("torch for the CPU is not on the configured index, asking PyTorch's own")
        code, output = run([*install, *_TORCH_CPU], on_line=report)
    return _reason(output) if code != 0 else None


def to_uv(pip_config: str) -> tuple[str, ...]:
    """uv's flags for what `pip config list` prints: uv does not read pip's configuration.

    The environment (`:env:`) counts more than files, as it does for pip.
    """
    values: dict[str, str] = {}
    for line in sorted(pip_config.splitlines(), key=lambda line: line.startswith(":env:")):
        key, separator, written = line.partition("=")
        name = key.rpartition(".")[2]
        if separator and name in (*_PIP_TO_UV, "no-index", "cert"):
            values[name] = str(ast.literal_eval(written))
    flags = [
        word
        for name, flag in _PIP_TO_UV.items()
        for value in values.get(name, "").split()
        for word in (flag, value)
    ]
    if values.get("no-index", "").lower() in ("1", "true", "yes", "on"):
        flags.append("--no-index")
    if "extra-index-url" in values:
        flags += ["--index-strategy", "unsafe-best-match"]  # as pip does it
    if "cert" in values:
        flags.append("--system-certs")
    return tuple(flags)


def _sources() -> tuple[str, ...]:
    code, output = run([sys.executable, "-m", "pip", "config", "list"])
    return to_uv(output) if code == 0 else ()


def _lacks_torch(output: str) -> bool:
    return "there is no version of torch==" in output


def _reason(output: str) -> str:
    """uv's own words: its error and the causes below it, or its last line."""
    lines = [" ".join(line.split()) for line in output.splitlines() if line.strip()]
    told = [line.partition(": ")[2] for line in lines if line.startswith(("error:", "cause:"))]
    return ": ".join(told or lines[-1:]) or "uv said nothing"
