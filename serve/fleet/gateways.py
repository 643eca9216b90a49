"""The gateway processes: kept alive on one listening socket that belongs to the supervisor."""

import asyncio
import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from serve.engine import Child
from serve.errors import InhouseError, NotWritable
from serve.log import fields

logger = logging.getLogger(__name__)

_LONGEST_DELAY_S = 5.0
# A gateway that ran this long was well; its next death starts the back-off anew.
_WELL_AFTER_S = 30.0


@dataclass(frozen=True, slots=True)
class GatewayConfig:
    """How gateways are run. `argv`: of the one with this slot (from 0). `fd`: the listening socket,
    inherited by each of them. `died`: called with its slot when one has ended and before another
    takes its place; what it raises is logged."""

    argv: Callable[[int], tuple[str, ...]]
    env: Mapping[str, str]
    fd: int
    log_dir: Path
    died: Callable[[int], None] = lambda slot: None


@dataclass(frozen=True, slots=True)
class GatewayStatus:
    """One gateway, as `ps` shows it."""

    pid: int | None
    restarts: int
    exit_code: int | None = None  # of the last one that ended


class GatewayPool:
    """Keeps `count` gateways running. Connections made while one is down wait in the backlog.

    The socket stays open in the supervisor, so a gateway may die and come back without a
    refused connection; the kernel ends a gateway whose supervisor dies, which frees the port.
    Raises NotWritable if there can be no logs.
    """

    def __init__(self, config: GatewayConfig, count: int) -> None:
        try:
            config.log_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
        except OSError as error:
            raise NotWritable(str(config.log_dir), error.strerror or "") from error
        self._config = config
        self._children: list[Child | None] = [None] * count
        self._restarts = [0] * count
        self._exit_codes: list[int | None] = [None] * count
        self._is_stopping = False
        self._tasks = [asyncio.create_task(self._keep(slot)) for slot in range(count)]

    def status(self) -> tuple[GatewayStatus, ...]:
        """Every gateway slot."""
        return tuple(
            GatewayStatus(child.pid if child else None, restarts, code)
            for child, restarts, code in zip(
                self._children, self._restarts, self._exit_codes, strict=True
            )
        )

    async def stop(self, drain_s: float) -> None:
        """SIGTERM to all; each finishes what it is answering within `drain_s`, then is killed."""
        self._is_stopping = True
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        running = [child for child in self._children if child is not None]
        await asyncio.gather(*(child.stop(drain_s) for child in running))

    async def _keep(self, slot: int) -> None:
        loop = asyncio.get_running_loop()
        delay_s = 0.0
        while not self._is_stopping:
            started_s = loop.time()
            child = self._children[slot] = Child.spawn(
                self._config.argv(slot),
                self._config.env,
                self._config.log_dir / f"gateway-{slot}.log",
                pass_fds=(self._config.fd,),
                dies_with_us=True,
            )
            code = await child.wait()
            self._children[slot] = None
            self._tidy(slot)
            delay_s = 0.0 if loop.time() - started_s > _WELL_AFTER_S else delay_s
            logger.error("gateway ended %s", fields(slot=slot, code=code, restart_after_s=delay_s))
            self._restarts[slot] += 1
            self._exit_codes[slot] = code
            await asyncio.sleep(delay_s)
            delay_s = min(max(0.2, delay_s * 2), _LONGEST_DELAY_S)

    def _tidy(self, slot: int) -> None:
        try:
            self._config.died(slot)
        except InhouseError as error:  # a full disk, say: the next one must serve all the same
            logger.error("after a gateway %s", fields(slot=slot, problem=error))
