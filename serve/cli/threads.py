"""Threads that do not keep us: a download that hangs must not hold up Ctrl-C."""

import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import ParamSpec, TypeVar

_P = ParamSpec("_P")
_T = TypeVar("_T")


class DaemonThreads(ThreadPoolExecutor):
    """One thread for each task, none of which is waited for at the end.

    Only for work that may be cut anywhere, as every pull may: what is not sealed does not exist.
    A ThreadPoolExecutor by name, because asyncio takes no other.
    """

    def submit(self, work: Callable[_P, _T], /, *args: _P.args, **kwargs: _P.kwargs) -> Future[_T]:
        future: Future[_T] = Future()

        def run() -> None:
            if not future.set_running_or_notify_cancel():
                return
            try:
                future.set_result(work(*args, **kwargs))
            except BaseException as error:  # whoever waits for the future gets it, whatever it is
                future.set_exception(error)

        threading.Thread(target=run, daemon=True).start()
        return future

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """There is nobody to wait for."""
