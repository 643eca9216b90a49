import asyncio
import threading

import pytest

from serve.cli.threads import DaemonThreads


def test_work_is_done_and_its_error_raised() -> None:
    async def run() -> int:
        asyncio.get_running_loop().set_default_executor(DaemonThreads())
        with pytest.raises(ZeroDivisionError):
            await asyncio.to_thread(lambda: 1 / 0)
        return await asyncio.to_thread(lambda: 7)

    assert asyncio.run(run()) == 7


def test_the_end_waits_for_no_thread() -> None:
    going, done = threading.Event(), threading.Event()

    def work() -> None:
        going.set()
        done.wait(60)

    async def run() -> None:
        loop = asyncio.get_running_loop()
        loop.set_default_executor(DaemonThreads())
        task = asyncio.create_task(asyncio.to_thread(work))
        while not going.is_set():
            await asyncio.sleep(0)
        task.cancel()

    asyncio.run(run())  # would hang for a minute
    assert not done.is_set()
    done.set()
