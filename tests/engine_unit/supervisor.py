"""A supervisor to be killed: `supervisor.py HOME ISOLATION GRACE_S` starts an engine and a spare.

Prints one JSON line when both are there, then waits for its end.
"""

import asyncio
import json
import os
import sys
from pathlib import Path

from serve.engine.pool import EnginePool
from tests.engine_unit.pools import fake_plan, pool_config, until


async def main(home: Path, isolation: str, grace_s: float) -> None:
    config = pool_config(home, isolation=isolation, grace_s=grace_s, spares=1)
    async with EnginePool(config) as pool:
        engine = await pool.start(fake_plan("smol", leave_worker=1), "smol-1")
        pool.keep_spares()
        await until(lambda: pool.spares == 1)
        print(json.dumps({"guard": engine.pid, "started_at": engine.started_at}), flush=True)
        await asyncio.Event().wait()


if __name__ == "__main__":
    os.setsid()
    asyncio.run(main(Path(sys.argv[1]), sys.argv[2], float(sys.argv[3])))
