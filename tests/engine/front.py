"""`inhouse serve` with models of somebody else only: no engine, no runtime."""

import os
import signal
import socket
import subprocess
import sys
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import httpx
import yaml

from tests.engine.stack import wait_until


class Front:
    """A context manager; `models` as in `inhouse.yaml`."""

    def __init__(self, folder: Path, models: dict[str, Any]) -> None:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        self.url = f"http://127.0.0.1:{port}"
        self._log = folder / "front.log"
        config = folder / "front.yaml"
        config.write_text(yaml.safe_dump({"models": models}))
        self._argv = [sys.executable, "-m", "serve", "serve", *models, "--config", str(config)]
        self._argv += ["--port", str(port)]
        self._env = os.environ | {
            "INHOUSE_HOME": str(folder / "home"), "INHOUSE_RUN": str(folder / "front"),
        }  # fmt: skip
        self._models = len(models)

    def __enter__(self) -> Self:
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(
                self._argv, env=self._env, stdout=log, stderr=log, stdin=subprocess.DEVNULL
            )
        wait_until(self._is_ready, 60, f"the front is ready: {self._log}")
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._process.send_signal(signal.SIGINT)
        self._process.wait(30)

    def _is_ready(self) -> bool:
        assert self._process.poll() is None, self._log.read_text()[-4000:]
        try:
            cards = httpx.get(f"{self.url}/v1/models", timeout=5).json()["data"]
        except (httpx.TransportError, ValueError):
            return False
        return len(cards) == self._models and all(card["state"] == "ready" for card in cards)
