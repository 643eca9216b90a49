"""A real PostgreSQL server of our own: in a temporary folder, on a unix socket, as nobody."""

import os
import pwd
import shutil
import signal
import subprocess
import tempfile
from pathlib import Path
from typing import Any

import psycopg
import pytest

_ROOT = Path(__file__).parents[2]
# What is written has to survive the server, not the machine.
_FAST = ("fsync=off", "full_page_writes=off", "max_connections=30")


def programs() -> Path:
    """The folder of the server's programs; skips the test where there is none."""
    on_path = shutil.which("initdb")
    debian = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"))
    found = [Path(on_path).resolve(), *debian] if on_path else debian
    if not found:
        pytest.skip("no PostgreSQL server here; scripts/postgres installs one")
    return found[-1].parent


class Postgres:
    """The server; `url(name)`: of a new database in it."""

    def __init__(self) -> None:
        self._programs = programs()
        self._folder = Path(tempfile.mkdtemp(prefix="ihpg", dir="/tmp"))
        self._user = _somebody()  # a server of root's refuses to start
        if self._user is not None:
            shutil.chown(self._folder, self._user)
        self._data = self._folder / "data"
        self._count = 0
        self._server: subprocess.Popen[bytes] | None = None
        self._run("initdb", "-D", self._data, "-U", "inhouse", "-A", "trust", "-N", "-E", "UTF8")
        self.start()

    def url(self) -> str:
        """Of a new, empty database."""
        self._count += 1
        name = f"ledger{self._count}"
        with psycopg.connect(self._address("postgres"), autocommit=True) as connection:
            connection.execute(f"CREATE DATABASE {name}".encode())
        return self._address(name)

    def start(self) -> None:
        """Start it again, with what it had; returns when it answers."""
        options = [word for option in _FAST for word in ("-c", option)]
        places = ["-D", str(self._data), "-k", str(self._folder), "-c", "listen_addresses="]
        argv = [str(self._programs / "postgres"), *places, *options]
        log = (self._folder / "log").open("ab")
        with log:
            self._server = subprocess.Popen(argv, stdout=log, stderr=log, **self._as_user())
        self._run("pg_isready", "-h", self._folder, "-t", "20", "-d", "postgres", is_tried=True)

    def crash(self) -> None:
        """End it at once: nothing is finished, nothing is written that was not."""
        if self._server is not None:
            self._server.send_signal(signal.SIGQUIT)
            self._server.wait(20)
            self._server = None

    def remove(self) -> None:
        """End it, and all that it has."""
        self.crash()
        shutil.rmtree(self._folder)

    def _address(self, name: str) -> str:
        return f"postgresql://inhouse:not-shown@/{name}?host={self._folder}"

    def _run(self, program: str, *arguments: Any, is_tried: bool = False) -> None:
        for _ in range(200 if is_tried else 1):
            ended = subprocess.run(
                [self._programs / program, *arguments], capture_output=True, **self._as_user()
            )
            if ended.returncode == 0:
                return
            if self._server is not None and self._server.poll() is not None:
                break
        said = (ended.stdout + ended.stderr).decode(errors="replace")
        pytest.skip(f"the PostgreSQL server here does not start: {program}: {said.strip()}")

    def _as_user(self) -> dict[str, Any]:
        if self._user is None:
            return {"cwd": "/"}
        found = pwd.getpwnam(self._user)
        return {"user": found.pw_uid, "group": found.pw_gid, "extra_groups": [], "cwd": "/"}


def _somebody() -> str | None:
    if os.getuid() != 0:
        return None
    names = {entry.pw_name for entry in pwd.getpwall()}
    return next(name for name in ("postgres", "nobody") if name in names)
