"""Our end of one guard: start it or find it again, tell it what to do, know when all is gone."""

import asyncio
import contextlib
import json
import secrets
import shutil
import signal
import socket
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from serve.engine.isolation import guard_argv
from serve.engine.process import Child, Watched
from serve.errors import NotWritable, SettingsError

# sun_path holds 108 bytes, of which one is its end.
LONGEST_SOCKET_PATH_BYTES = 107
_GUARD_SOCKET, _ENGINE_SOCKET = "guard.sock", "engine.sock"
# What engines bind in their scratch folder is at most "/" and a UUID longer (multiprocessing's
# listeners are shorter).
_LONGEST_SCRATCH_PATH_BYTES = LONGEST_SOCKET_PATH_BYTES - 37
# How long a guard may take to end an engine before we end the guard (and the kernel the rest).
_PATIENCE_S = 3.0


@dataclass(frozen=True, slots=True)
class Orders:
    """What a guard needs to know to start a host; `folder` must not be there yet.

    `is_background`: where that can be undone, its processor time counts less until it serves.
    """

    folder: Path
    log_path: Path
    namespaces: tuple[str, ...]
    argv: tuple[str, ...]
    env: Mapping[str, str]
    grace_s: float
    is_background: bool = False


class Guard:
    """One guard. `_follow` is the only one that learns what became of it."""

    def __init__(
        self,
        folder: Path,
        streams: tuple[asyncio.StreamReader, asyncio.StreamWriter],
        child: Child | None,
    ) -> None:
        self.folder = folder
        self.is_imported = False
        self._reader, self._writer = streams
        self._child = child
        self._outer = _watch(child.pid) if child is not None else None
        self._inner: Watched | None = None
        self._exit_code: int | None = None
        self._state = asyncio.Event()
        self._imported = asyncio.Event()
        self._follower = asyncio.create_task(self._follow())

    @classmethod
    async def start(cls, orders: Orders) -> "Guard":
        """A new guard with a new host. Raises NotWritable, SettingsError (path too long)."""
        _make(orders.folder)
        try:
            return await cls._start(orders)
        except BaseException:
            _clear(orders.folder)
            raise

    @classmethod
    async def _start(cls, orders: Orders) -> "Guard":
        with _listen(orders.folder / _GUARD_SOCKET) as listener:
            # Connected before it starts: there is no moment in which nobody watches.
            streams = await asyncio.open_unix_connection(orders.folder / _GUARD_SOCKET)
            config = {
                "namespaces": orders.namespaces,
                "folders": [str(scratch_folder(orders.folder)), str(orders.folder)],
                "fd": listener.fileno(),
                "argv": orders.argv,
                "env": dict(orders.env),
                "grace_s": orders.grace_s,
                "is_background": orders.is_background,
            }
            child = Child.spawn(
                guard_argv(),
                {},
                orders.log_path,
                stdin=json.dumps(config).encode(),
                pass_fds=(listener.fileno(),),
            )
        return cls(orders.folder, streams, child)

    @classmethod
    async def find(cls, folder: Path) -> "Guard | None":
        """The guard that lives in this folder; None when there is none (and the folder no more)."""
        try:
            streams = await asyncio.open_unix_connection(folder / _GUARD_SOCKET)
        except OSError:
            _clear(folder)
            return None
        guard = cls(folder, streams, None)
        try:
            await asyncio.wait_for(guard._state.wait(), _PATIENCE_S)
        except TimeoutError:
            guard._writer.close()
            await guard.gone()
            return None
        return guard

    @property
    def socket(self) -> Path:
        """Where the engine listens once it does."""
        return self.folder / _ENGINE_SOCKET

    @property
    def pid(self) -> int:
        """The outer process; 0 when the guard was gone before it could be found."""
        return self._outer.pid if self._outer is not None else 0

    def go(self, argv: Sequence[str], env: Mapping[str, str]) -> None:
        """Let the host serve; now or as soon as it has imported."""
        self._tell(do="go", argv=argv, env=dict(env))

    def signal(self, signum: int) -> None:
        """Send to the host alone, as vLLM wants it: it passes it on as it sees fit."""
        self._tell(do="signal", signum=signum)

    async def imported(self) -> bool:
        """True when the host waits for its orders (or has them); False when it is gone."""
        await self._imported.wait()
        return self.is_imported

    async def gone(self) -> int | None:
        """When nothing of it is left: the host's exit code if it is known."""
        await asyncio.shield(self._follower)
        return self._exit_code

    async def end(self, grace_s: float = 0.0) -> int | None:
        """SIGTERM to the host where there is time, SIGKILL to all, return when all is gone."""
        if grace_s > 0:
            self.signal(signal.SIGTERM)
            await asyncio.wait({self._follower}, timeout=grace_s)
        self._tell(do="kill")
        await asyncio.wait({self._follower}, timeout=_PATIENCE_S)
        self._kill_outer()
        return await self.gone()

    def _tell(self, **order: Any) -> None:
        if not self._writer.is_closing():
            self._writer.write(json.dumps(order).encode() + b"\n")

    async def _follow(self) -> None:
        with contextlib.suppress(ConnectionError):
            async for line in self._reader:
                self._learn(json.loads(line))
        self._writer.close()
        try:
            await asyncio.wait_for(self._processes_gone(), _PATIENCE_S)
        except TimeoutError:  # it lives but does not talk to us
            self._kill_outer()
            await self._processes_gone()
        _clear(self.folder)
        self._state.set()
        self._imported.set()

    def _learn(self, event: Mapping[str, Any]) -> None:
        if event["event"] == "exited":
            self._exit_code = event["code"]
        if event["event"] == "state":
            self._inner = _watch(event["inner"])
            self._outer = self._outer or _watch(event["outer"])
            self._state.set()
        if event["event"] == "imported" or event.get("imported"):
            self.is_imported = True
            self._imported.set()

    async def _processes_gone(self) -> None:
        if self._child is not None:
            await self._child.wait()
        for process in (self._outer, self._inner):
            if process is not None:
                await process.gone()

    def _kill_outer(self) -> None:
        """Not its group: without namespaces it is the inner one that ends the rest."""
        if self._outer is not None:
            self._outer.kill()


def _watch(pid: int) -> Watched | None:
    try:
        return Watched(pid)
    except ProcessLookupError:
        return None


def engines_folder(run_dir: Path) -> Path:
    """Where the folders of engines lie, one each."""
    return run_dir / "engines"


def new_folder(run_dir: Path) -> Path:
    """A folder for one engine; it is not there yet."""
    return engines_folder(run_dir) / secrets.token_hex(4)


def scratch_folder(folder: Path) -> Path:
    """Where the engine that lives in this folder keeps temporary files and inner sockets. It is
    removed with it, whoever does that; outside of it only if paths of sockets would be too long."""
    inside = folder / "tmp"
    if len(bytes(inside)) <= _LONGEST_SCRATCH_PATH_BYTES:
        return inside
    return Path(tempfile.gettempdir()) / f"inhouse-{folder.name}"


def _make(folder: Path) -> None:
    """An engine's folder and its scratch; neither may be there yet."""
    made: list[Path] = []
    try:
        for each in (folder, scratch_folder(folder)):
            each.mkdir(mode=0o700, parents=True)
            made.append(each)
    except OSError as error:
        for each in made:
            each.rmdir()
        raise NotWritable(str(error.filename or folder), error.strerror or "") from error


def _clear(folder: Path) -> None:
    """Remove an engine's folder and its scratch, as far as they are there."""
    for each in (scratch_folder(folder), folder):
        shutil.rmtree(each, ignore_errors=True)


def socket_path_bytes(run_dir: Path) -> int:
    """Length of the path of an engine's socket."""
    return len(bytes(new_folder(run_dir) / _ENGINE_SOCKET))


def _listen(path: Path) -> socket.socket:
    size = len(bytes(path.with_name(_ENGINE_SOCKET)))
    if size > LONGEST_SOCKET_PATH_BYTES:
        problem = f"a socket in there would have a path of {size} bytes, the kernel takes 107"
        raise SettingsError("engine", "paths.run", problem)
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        listener.bind(str(path))
        path.chmod(0o600)
        listener.listen(8)
    except OSError as error:
        listener.close()
        raise NotWritable(str(path), error.strerror or "") from error
    return listener
