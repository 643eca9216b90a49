"""The host against a vLLM that only tells what was done to it."""

import asyncio
import json
import re
import sys
from pathlib import Path
from typing import Any

import pytest

from serve.engine.guarding import Guard, Orders
from serve.shipped import shipped
from tests.engine_unit.pools import short_folder

HOST = shipped("inside/host.py")
MAIN = """
import json, multiprocessing, os, sys
def child(queue):
    queue.put(os.getppid())
def main():
    context = multiprocessing.get_context("spawn")
    queue = context.SimpleQueue()
    process = context.Process(target=child, args=(queue,))
    process.start()
    is_child = queue.get() == os.getpid()
    process.join()
    print(json.dumps({"method": context.get_start_method(), "argv": sys.argv[1:],
                      "key": os.environ["KEY"], "is_child": is_child}))
"""


def make_vllm(folder: Path, version: str, main: str = MAIN) -> None:
    """A package with all modules that the host imports ahead, and the plain way to serve."""
    for name in set(re.findall(r'"(vllm\.[\w.]+)"', HOST.read_text())):
        path = folder / (name.replace(".", "/") + ".py")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
        for parent in path.relative_to(folder).parents:
            (folder / parent / "__init__.py").touch()
    (folder / "vllm" / "__init__.py").write_text(f"__version__ = {version!r}\n")
    (folder / "vllm/entrypoints/launchers/api_server/entry.py").write_text(main)
    (folder / "torch.py").write_text("class compiler: pass")
    plain = folder / "vllm/entrypoints/openai/api_server.py"
    plain.write_text("import sys; print('plain', sys.argv[1:])")


def run_host(packages: Path | None) -> tuple[int | None, str]:
    """The exit code and the log of a host that was told to serve `--model m`."""

    async def scenario(folder: Path) -> tuple[int | None, str]:
        env = {"PYTHONPATH": str(packages)} if packages is not None else {}
        argv = (sys.executable, str(HOST), "cpu", "--leash")
        orders = Orders(folder / "guard", folder / "log", (), argv, env, 5.0)
        guard = await Guard.start(orders)
        assert await guard.imported()
        guard.go(["--model", "m"], {"KEY": "value"})
        return await guard.gone(), orders.log_path.read_text()

    with short_folder() as folder:
        return asyncio.run(scenario(folder))


def said(log: str) -> dict[str, Any]:
    line = next(line for line in log.splitlines() if line.startswith("{"))
    record: dict[str, Any] = json.loads(line)
    return record


def test_the_fast_way_forks(tmp_path: Path) -> None:
    make_vllm(tmp_path, "0.0.0")
    version = re.findall(r"FORKED_VERSIONS = \(\"([\d.]+)\"", HOST.read_text())[0]
    make_vllm(tmp_path, version)
    code, log = run_host(tmp_path)
    assert code == 0
    facts = {"method": "fork", "argv": ["--model", "m"], "key": "value", "is_child": True}
    assert said(log) == facts


@pytest.mark.parametrize(
    ("version", "main", "reason"),
    [
        ("9.9.9", MAIN, "was not tested"),
        ("0.32.0", "def main(): raise ImportError('moved')", "moved"),
        ("0.32.0", "x", "NameError"),
    ],
)
def test_else_the_plain_way_is_taken(tmp_path: Path, version: str, main: str, reason: str) -> None:
    make_vllm(tmp_path, version, main)
    code, log = run_host(tmp_path)
    assert code == 0
    assert "the fast start is not taken" in log
    assert reason in log
    assert "plain ['--model', 'm']" in log


def test_an_error_of_the_model_is_not_tried_again(tmp_path: Path) -> None:
    make_vllm(tmp_path, "0.32.0", "def main(): raise ValueError('no such model')")
    code, log = run_host(tmp_path)
    assert code == 1
    assert "no such model" in log
    assert "plain" not in log


def test_without_vllm_the_log_says_so() -> None:
    code, log = run_host(None)
    assert code == 1
    assert "No module named 'vllm'" in log
