"""A house that serves: the real `inhouse serve` with fake engines, and a look into its books."""

import json
import os
import shutil
import signal
import socket
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import psutil
import psycopg
from psycopg.rows import dict_row

from serve.journal import Journals
from serve.limits import Table
from serve.limits.layout import ROW
from serve.limits.rates import Counts
from tests.cli.conftest import CONFIG, FAKE_PYTHON, FAKES
from tests.fakes.tiny import llama_file

Knobs = Mapping[str, object]
Row = Mapping[str, Any]
_FOREIGN = ("INHOUSE_", "HF_", "HUGGINGFACE_", "XDG_", "FAKE_")
_READY_S = 60.0


@dataclass
class House:
    """`folder`: its home and settings; `run`: its sockets. `start`, `stop`, and `kill` as you like;
    what runs ends with `running_house`."""

    folder: Path
    run: Path
    port: int
    models: tuple[str, ...]
    environ: dict[str, str]
    ledger: str | None = None  # its URL; None: SQLite, in its home
    process: subprocess.Popen[str] | None = None
    starts: int = 0
    is_stopped: bool = True  # in order: nothing runs

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def home(self) -> Path:
        return self.folder / "home"

    @property
    def journals(self) -> Journals:
        return Journals(self.home / "journal")

    def start(self) -> None:
        """Returns when all models answer."""
        self.starts, self.is_stopped = self.starts + 1, False
        log = self.folder / f"serve-{self.starts}.log"
        with log.open("w") as errors:
            self.process = subprocess.Popen(
                self._argv("serve", *self.models, "--json"), cwd=self.folder, env=self.environ,
                stdout=subprocess.PIPE, stderr=errors, text=True,
            )  # fmt: skip
        assert self.process.stdout is not None
        assert self.process.stdout.readline() == "{\n", log.read_text()

    def stop(self) -> None:
        """As an operator does: requests come to their end, books are closed."""
        assert self.process is not None
        self.process.send_signal(signal.SIGTERM)
        assert self.process.wait(60) == 0
        self.is_stopped = True
        self._forget()

    def kill(self) -> None:
        """SIGKILL for the supervisor; the kernel ends its gateways, its engines live on."""
        assert self.process is not None
        gateways = [psutil.Process(pid) for pid in self.gateways()]
        self.process.kill()
        self.process.wait()
        psutil.wait_procs(gateways, timeout=10)
        self._forget()

    def _forget(self) -> None:
        assert self.process is not None and self.process.stdout is not None
        self.process.stdout.close()
        self.process = None

    def inhouse(self, *arguments: str) -> str:
        """What `inhouse …` says on stdout; it must succeed."""
        ended = subprocess.run(
            self._argv(*arguments), cwd=self.folder, env=self.environ, capture_output=True,
            text=True, timeout=60, check=False,
        )  # fmt: skip
        assert ended.returncode == 0, ended.stderr
        return ended.stdout

    def create_key(self, tenant: str, *flags: str) -> tuple[str, str]:
        """Its text and its id; all gateways know it by the time it returns."""
        made = json.loads(self.inhouse("key", "create", "--tenant", tenant, "--json", *flags))
        return made["text"], made["key"]["id"]

    def status(self) -> dict[str, Any]:
        status: dict[str, Any] = _get(str(self.run / "control.sock"), "/status")
        return status

    def gateways(self) -> list[int]:
        """The pids of those that run."""
        return [each["pid"] for each in self.status()["gateways"] if each["pid"]]

    def engines(self) -> dict[str, int]:
        """The pids of engines, by replica."""
        return {each["replica"]: each["pid"] for each in self.status()["models"]}

    def ask_engine(self, model: str, path: str) -> Any:
        """What its (only) engine answers."""
        found = next(each for each in self.status()["models"] if each["name"] == model)
        return _get(found["socket"], path)

    def rows(self, sql: str, *values: object) -> Sequence[Row]:
        """What stands in the ledger, read without any code of ours. `sql` has `?` for values."""
        if self.ledger is not None:
            with psycopg.connect(self.ledger, row_factory=dict_row) as there:
                return there.execute(sql.replace("?", "%s").encode(), values).fetchall()
        file = f"file:{self.home / 'ledger.sqlite3'}?mode=ro"
        with closing(sqlite3.connect(file, uri=True, timeout=10)) as database:
            database.row_factory = sqlite3.Row
            return [dict(row) for row in database.execute(sql, values)]

    def limits(self) -> dict[int, Counts]:
        """All rows of the table of limits, by their ids (`serve.limits.layout.id_of`)."""
        table = Table(self.run / "limits")
        try:
            places = map(table.layout.row, range(table.layout.rows))
            rows = (Counts._make(ROW.unpack_from(table.bytes, at)) for at in places)
            return {row.id: row for row in rows if row.id}
        finally:
            table.close()

    def is_quiet(self) -> bool:
        """Nobody is in, and all that was written down has come into the ledger."""
        if any(row.in_flight or row.reserved_tokens for row in self.limits().values()):
            return False
        writers = self.journals.writers()
        if any(writer.is_gone for writer in writers):
            return False
        read = {row["name"]: row["offset"] for row in self.rows("SELECT * FROM segments")}
        for writer in writers:
            for segment in writer.segments:
                if self.journals.read(writer, segment, read.get(segment, 0), 1).records:
                    return False
        return not self.rows("SELECT id FROM open_requests LIMIT 1")

    def _argv(self, *arguments: str) -> list[str]:
        return [sys.executable, "-m", "serve", *arguments]


@contextmanager
def running_house(
    folder: Path, models: Mapping[str, Knobs], settings: Mapping[str, Any], is_started: bool = True
) -> Iterator[House]:
    """A house that serves `models` (name → knobs of its fake), with more settings (groups of
    inhouse.yaml, over those of ours)."""
    house = make_house(folder, models, settings)
    try:
        if is_started:
            house.start()
        yield house
    finally:
        if house.process is None and not house.is_stopped:
            house.start()  # it adopts the engines, and ends them
        if house.process is not None:
            house.stop()
        shutil.rmtree(house.run, ignore_errors=True)


def make_house(folder: Path, models: Mapping[str, Knobs], settings: Mapping[str, Any]) -> House:
    """Its folders and settings; nothing runs yet."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    folder.mkdir(parents=True, exist_ok=True)
    run = Path(tempfile.mkdtemp(prefix="ih", dir="/tmp"))  # short: paths of sockets end at 107
    python = folder / "python"
    python.write_text(FAKE_PYTHON.format(python=sys.executable, fakes=FAKES))
    python.chmod(0o755)
    _write_weights(folder / "weights")
    entry = {"family": "qwen3", "dir": "weights", "context": 2048, "parameters": "1K"}
    catalog = {name: entry | {"engine_args": _flags(knobs)} for name, knobs in models.items()}
    (folder / "catalog.yaml").write_text(json.dumps({"models": catalog}))  # JSON is YAML
    ours: dict[str, Any] = {
        "paths": {"catalog": str(folder / "catalog.yaml")},
        "server": {"port": port, "drain": "10s"},
        "engine": {"python": str(python), "device": "cpu", "spares": 0, "compile": "off"},
    }
    for group, more in settings.items():
        ours[group] = ours.get(group, {}) | more
    (folder / "inhouse.yaml").write_text(json.dumps(ours))
    environ = {name: value for name, value in os.environ.items() if not name.startswith(_FOREIGN)}
    environ |= {"HOME": str(folder), "INHOUSE_HOME": str(folder / "home"), "INHOUSE_RUN": str(run)}
    environ |= {"PYTHONPATH": str(FAKES.parents[1])}
    return House(folder, run, port, tuple(models), environ, ours.get("ledger", {}).get("url"))


def until(condition: Callable[[], object], timeout_s: float = 30) -> None:
    """Wait until something outside this process has come true."""
    started = time.monotonic()
    while not condition():
        assert time.monotonic() - started < timeout_s, f"not in {timeout_s} s: {condition}"
        time.sleep(0.02)


def _get(uds: str, path: str) -> Any:
    with httpx.Client(transport=httpx.HTTPTransport(uds=uds), timeout=30) as client:
        return client.get(f"http://there{path}").json()


def _flags(knobs: Knobs) -> dict[str, object]:
    return {f"fake-{name.replace('_', '-')}": value for name, value in knobs.items()}


def _write_weights(folder: Path) -> None:
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(CONFIG))
    (folder / "tokenizer.json").write_text('{"version": "1.0"}')
    (folder / "tokenizer_config.json").write_text('{"tokenizer_class": "X"}')
    (folder / "model.safetensors").write_bytes(llama_file(CONFIG))
