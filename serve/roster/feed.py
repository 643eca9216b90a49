"""The feed of rosters: one JSON line per snapshot, over the supervisor's `control.sock`."""

from collections.abc import AsyncIterator
from pathlib import Path

import httpcore

from serve.errors import ControlLost, NotRunning
from serve.roster.roster import Roster

# httpcore and not httpx: importing httpx loads rich and click where they are installed, which
# costs a gateway a fifth of its memory.
_TIMEOUTS = {"connect": 5.0, "read": None, "write": 5.0, "pool": 5.0}


async def follow(socket: Path) -> AsyncIterator[Roster]:
    """Every roster from now on, the current one first. Empty lines only keep the feed alive.

    Never ends by itself: raises NotRunning if nobody answers at `socket`, ControlLost when the
    feed breaks.
    """
    pending = b""
    async with httpcore.AsyncConnectionPool(uds=str(socket)) as pool:
        try:
            async with pool.stream(
                "GET", "http://control/roster", extensions={"timeout": _TIMEOUTS}
            ) as response:
                if response.status != 200:
                    raise ControlLost(f"the roster was answered with status {response.status}")
                async for data in response.aiter_stream():
                    *lines, pending = (pending + data).split(b"\n")
                    for line in lines:
                        if line.strip():
                            yield Roster.from_line(line)
        except (httpcore.ConnectError, httpcore.ConnectTimeout) as error:
            raise NotRunning(str(socket)) from error
        except (httpcore.NetworkError, httpcore.ProtocolError, httpcore.TimeoutException) as error:
            raise ControlLost(f"the feed broke: {error}") from error
    raise ControlLost("the feed ended")
