"""Compiled forms of models on a CPU: prepared in the background once, loaded by later starts.

vLLM's default is to compile at every first start (two minutes on two cores). A first start of ours
is eager; when its engine is ready, a second one rehearses at the lowest priority: it compiles into
the shared cache, becomes healthy and is ended. A mark says that it worked; a start that finds the
mark loads the program in 2 s.

vLLM's key for a compiled program holds its version, the model's path and config, context,
`max-num-batched-tokens`, `max-num-seqs`, most `VLLM_` variables and parallelism; not the size of
the KV cache, the socket, names or seeds. So a rehearsal may use a small KV cache.
"""

import asyncio
import hashlib
import json
import logging
import shutil
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from serve.engine.command import Launch, Mode, build_command, cpu_flags, runtime_cache
from serve.engine.flags import parse_own
from serve.engine.guarding import Guard, scratch_folder
from serve.engine.life import tail, until_ready
from serve.engine.runtime import Runtime
from serve.errors import InhouseError
from serve.log import fields
from serve.plan import Plan
from serve.units import show_bytes

# Beside the weights: vLLM's three processes and the compiler (2.2 GiB with the starter model).
_OVERHEAD_BYTES = 5 * 2**29
_TIMEOUT_S = 3600.0
# What may differ between a rehearsal and the start that loads its program.
_VOLATILE = ("uds", "kv-cache-memory-bytes")
# vLLM's own words in the log once the program is on disk (or was there already).
_SAVED = ("saved AOT compiled function", "Directly load AOT compilation")

# Niceness counts inside a session only where the kernel groups processes by session (autogroup), so
# the group is made nice too.
_IN_THE_BACKGROUND = (
    "/bin/sh",
    "-c",
    'echo 19 2>/dev/null >/proc/self/autogroup; exec nice -n 19 "$@"',
    "sh",
)

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Rehearsal:
    """A host that waits for orders at the lowest priority, and where it writes its log."""

    guard: Guard
    log_path: Path


class Compiler:
    """Knows which models are prepared and prepares others, one at a time.

    `new_host` starts a host with the argv prefix that it is given.
    """

    def __init__(
        self,
        runtime: Runtime,
        cache_dir: Path,
        extra_args: tuple[str, ...],
        new_host: Callable[[tuple[str, ...]], Awaitable[Rehearsal]],
        free_bytes: Callable[[], int],
    ) -> None:
        self._runtime = runtime
        self._cache_dir = cache_dir
        self._extra_args = extra_args
        self._new_host = new_host
        self._free_bytes = free_bytes
        self._turn = asyncio.Lock()
        self._tasks: dict[Path, asyncio.Task[None]] = {}

    def mode(self, plan: Plan) -> Mode:
        """How to start: on a GPU vLLM compiles quickly by itself."""
        is_prepared = plan.device == "cuda" or self._mark(plan).exists()
        return "compiled" if is_prepared else "eager"

    def forget(self, plan: Plan) -> None:
        """A compiled start failed: do not try that again before it is prepared anew."""
        self._mark(plan).unlink(missing_ok=True)

    def prepare_later(self, plan: Plan) -> None:
        """Prepare `plan` in the background, unless that is done, under way or not possible."""
        mark = self._mark(plan)
        if mark.exists() or mark in self._tasks:
            return
        problem = self.obstacle(plan)
        if problem is not None:
            _log.info("not compiled: %s %s", problem, fields(model=plan.subject.spec.name))
            return
        task = asyncio.create_task(self._prepare(plan, mark))
        self._tasks[mark] = task
        task.add_done_callback(lambda _: self._tasks.pop(mark, None))

    def obstacle(self, plan: Plan) -> str | None:
        """Why `plan` cannot be prepared here and now, or None."""
        if plan.device != "cpu":
            return "only models on a CPU are prepared"
        if build_command(plan, self._runtime, self._launch(Path("/"))).mode == "eager":
            return "engine.args ask for --enforce-eager"
        if find_cxx() is None:
            return "there is no C++ compiler (g++)"
        needed, free = plan.subject.weights_bytes + _OVERHEAD_BYTES, self._free_bytes()
        if free < needed:
            return f"it takes {show_bytes(needed)} of memory, {show_bytes(free)} are free"
        return None

    async def close(self) -> None:
        """Nothing is prepared any more when this returns."""
        tasks = list(self._tasks.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _prepare(self, plan: Plan, mark: Path) -> None:
        model = plan.subject.spec.name
        async with self._turn:
            try:
                said = await self._rehearse(plan)
            except InhouseError as error:
                _log.warning("could not be compiled: %s", fields(model=model, error=str(error)))
                return
        if any(words in said for words in _SAVED):
            mark.parent.mkdir(parents=True, exist_ok=True)
            mark.touch()
            _log.info("compiled, the next start is a faster one %s", fields(model=model))

    async def _rehearse(self, plan: Plan) -> str:
        """The log of an engine that became ready; nothing of it is left."""
        host = await self._new_host(_IN_THE_BACKGROUND)
        try:
            command = build_command(plan, self._runtime, self._launch(host.guard.folder))
            host.guard.go(command.argv, command.env)
            await until_ready(host.guard, plan.subject.spec.name, host.log_path, _TIMEOUT_S)
            return tail(host.log_path)
        finally:
            await host.guard.end()

    def _launch(self, folder: Path) -> Launch:
        return Launch(
            socket=folder / "engine.sock",
            scratch_dir=scratch_folder(folder),
            cache_dir=self._cache_dir,
            mode="compiled",
            extra_args=self._extra_args,
            is_rehearsal=True,
        )

    def _mark(self, plan: Plan) -> Path:
        launch = replace(self._launch(Path("/")), is_rehearsal=False)
        command = build_command(plan, self._runtime, launch)
        key = program_key(command.argv, command.env, plan.subject.digest, cpu_flags())
        return runtime_cache(self._runtime, self._cache_dir) / "compiled" / key


def program_key(
    argv: tuple[str, ...], env: Mapping[str, str], weights_digest: str, cpu: str
) -> str:
    """What must be equal for a compiled program to be usable, as a file name.

    More than vLLM's own key: its programs hold code for one kind of CPU, which it does not check.
    """
    flags = {name: values for name, values in parse_own(argv).items() if name not in _VOLATILE}
    threads = env.get("VLLM_CPU_OMP_THREADS_BIND", "")
    facts = json.dumps([flags, threads, weights_digest, cpu], sort_keys=True)
    return hashlib.sha256(facts.encode()).hexdigest()[:24]


def find_cxx() -> str | None:
    """The C++ compiler that inductor would use."""
    return shutil.which("g++")
