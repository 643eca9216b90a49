"""The host of one engine: imports vLLM ahead, waits for its model, becomes its API server.

Run as `host.py cpu|cuda [--leash]` by a runtime's Python under `guard.py`: says `imported` on file
descriptor 3, reads one line `{"argv": [...], "env": {...}}` from stdin, then serves. The fast way
(modules imported ahead, children forked instead of spawned) brings a CPU engine to
readiness in a quarter of the time; whatever breaks in it, the plain way is `python -m` and is said.

`--leash`: there is no PID namespace, so whoever is forked from here dies with its parent.
"""

import ctypes
import gc
import importlib
import json
import multiprocessing
import os
import signal
import sys
import threading
import time
import traceback
import warnings
from typing import Any, NoReturn

EVENTS_FD = 3
PR_SET_PDEATHSIG = 1
SERVER = "vllm.entrypoints.openai.api_server"
ENTRY = "vllm.entrypoints.launchers.api_server.entry"
# The versions whose children were tested to come up forked. Others take the plain way.
FORKED_VERSIONS = ("0.32.0",)
# What an API server, an engine core and a worker import until they serve.
MODULES = (
    ENTRY,
    "vllm.entrypoints.launchers.app",
    "vllm.entrypoints.launchers.api_server.app_state",
    "vllm.v1.engine.async_llm",
    "vllm.v1.engine.core",
    "vllm.v1.executor.multiproc_executor",
)
DEVICE_MODULES = {
    "cpu": ("vllm.v1.worker.cpu_worker", "vllm.v1.worker.cpu_model_runner"),
    "cuda": ("vllm.v1.worker.gpu_worker", "vllm.v1.worker.gpu_model_runner"),
}
# Errors that a change in vLLM causes, as opposed to a model, a machine or a flag.
DRIFT = (ImportError, AttributeError, NotImplementedError)


def main(device: str, is_leashed: bool) -> NoReturn:
    """Import, say so, wait, serve. Does not return."""
    if is_leashed:
        leash_children()
    started = time.monotonic()
    problem = None
    try:
        version = import_ahead(device)
    except Exception:  # whatever it is, the plain way may still work, or say it better
        version, problem = "", traceback.format_exc()
    say(event="imported", version=version, took_s=round(time.monotonic() - started, 3))
    line = sys.stdin.readline()
    os.close(EVENTS_FD)
    if not line:
        sys.exit(0)
    order = json.loads(line)
    os.environ.update(order["env"])
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    if problem is None:
        problem = serve(version, order["argv"])
    serve_plainly(problem, order["argv"])


def import_ahead(device: str) -> str:
    """The version of vLLM, with everything in memory that can be there before a model is known."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        version: str = importlib.import_module("vllm").__version__
        for module in MODULES + DEVICE_MODULES[device]:
            importlib.import_module(module)
    # What is there now lives on; the collector need not touch (and so copy) it in every child.
    gc.collect()
    gc.freeze()
    return version


def serve(version: str, argv: list[str]) -> str:
    """Serve until told to stop, then leave; comes back only with a reason for the plain way."""
    if version not in FORKED_VERSIONS:
        return f"vLLM {version} was not tested with forked children"
    try:
        for sentence in importlib.import_module("repairs").apply(version):
            note(sentence)
        fork_children()
        sys.argv = ["vllm", *argv]
        importlib.import_module(ENTRY).main()
    except DRIFT:
        return traceback.format_exc()
    sys.exit(0)


def serve_plainly(problem: str, argv: list[str]) -> NoReturn:
    """vLLM as it starts by itself."""
    note(f"the fast start is not taken: {problem}")
    sys.stdout.flush()
    os.execv(sys.executable, [sys.executable, "-m", SERVER, *argv])


def fork_children() -> None:
    """vLLM's CPU platform insists on `spawn`, whose children import everything once more.

    Before vLLM serves nothing in this process has threads or devices that a fork would break.
    """
    original = multiprocessing.get_context

    def get_context(method: str | None = None) -> Any:
        return original("fork" if method == "spawn" else method)

    multiprocessing.get_context = get_context


def leash_children() -> None:
    """The kernel kills a forked child when its parent's thread ends: only for the main thread."""
    forked_by_main = False
    prctl = ctypes.CDLL(None).prctl

    def remember() -> None:
        nonlocal forked_by_main
        forked_by_main = threading.current_thread() is threading.main_thread()

    def ask() -> None:
        if forked_by_main:
            prctl(PR_SET_PDEATHSIG, ctypes.c_ulong(signal.SIGKILL), 0, 0, 0)

    os.register_at_fork(before=remember, after_in_child=ask)


def say(**event: Any) -> None:
    """One event for the guard, in one write."""
    os.write(EVENTS_FD, json.dumps(event).encode() + b"\n")


def note(text: str) -> None:
    """A line in the engine's log."""
    print(f"inhouse: {text}", file=sys.stderr, flush=True)


if __name__ == "__main__":
    main(sys.argv[1], "--leash" in sys.argv[2:])
