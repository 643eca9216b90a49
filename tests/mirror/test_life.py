"""`inhouse mirror` as a process: how it begins, and how it ends."""

import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.mirror.houses import BIG, House, body_of, read_all

FILES = {"config.json": b"{}", "model.safetensors": os.urandom(1 << 20) * 48}


@pytest.fixture
def held(tmp_path: Path) -> House:
    house = House(tmp_path / "1")
    house.hold("org/big", FILES)
    house.hold("hidden/m", FILES | {"model.safetensors": b"w" * 10})
    return house


def argv(house: House, *arguments: str) -> list[str]:
    return [sys.executable, "-m", "serve", "mirror", "--home", str(house.home), *arguments]


class Process:
    """`inhouse mirror --json …`, up and listening."""

    def __init__(self, running: subprocess.Popen[bytes], facts: dict[str, Any]) -> None:
        self.running, self.facts = running, facts
        self.port = int(facts["address"].rpartition(":")[2])

    def client(self) -> socket.socket:
        client = socket.socket()
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        client.settimeout(20)
        client.connect(("127.0.0.1", self.port))
        return client

    def told(self, text: str) -> None:
        """Wait until a line on stderr holds the text."""
        assert self.running.stderr is not None
        for line in self.running.stderr:
            if text in line.decode():
                return
        raise AssertionError(f"never said: {text}")


@contextmanager
def process(house: House, *arguments: str) -> Iterator[Process]:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = argv(house, "--json", "--port", str(port), *arguments)
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as running:
        try:
            assert running.stdout is not None
            lines = []
            while (line := running.stdout.readline()) and line != b"}\n":
                lines.append(line)
            yield Process(running, json.loads(b"".join([*lines, line])))
        finally:
            if running.poll() is None:
                running.kill()


def is_open(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), timeout=20).close()
    except (ConnectionRefusedError, ConnectionResetError):
        return False
    return True


def test_a_first_signal_lets_transfers_finish(held: House) -> None:
    with process(held) as mirror, mirror.client() as client, mirror.client() as idle:
        client.sendall(BIG)
        assert client.recv(12) == b"HTTP/1.1 200"
        mirror.running.send_signal(signal.SIGTERM)
        mirror.told("stopping")
        assert read_all(idle) == b""
        while is_open(mirror.port):  # it says so first, then closes the door
            pass
        assert body_of(read_all(client)) == FILES["model.safetensors"]
        assert mirror.running.wait(20) == 0


def test_a_second_signal_ends_at_once(held: House) -> None:
    with process(held) as mirror, mirror.client() as client:
        client.sendall(BIG)
        assert client.recv(12) == b"HTTP/1.1 200"
        mirror.running.send_signal(signal.SIGINT)
        mirror.told("stopping")
        mirror.running.send_signal(signal.SIGINT)
        assert mirror.running.wait(20) == 130


def test_a_drain_is_bounded(held: House) -> None:
    with process(held, "--drain", "200ms") as mirror, mirror.client() as client:
        client.sendall(BIG)
        assert client.recv(12) == b"HTTP/1.1 200"
        mirror.running.send_signal(signal.SIGTERM)
        assert mirror.running.wait(20) == 130


def test_it_says_what_it_gives(held: House) -> None:
    with process(held, "--repo", "org/*", "--rate", "10MiB") as mirror:
        [row] = mirror.facts["revisions"]
        assert (row["repo"], row["names"]) == ("org/big", ["main"])
        assert row["bytes"] == sum(map(len, FILES.values()))
        assert mirror.facts["rate"] == 10 << 20 and not mirror.facts["has_key"]
        command = argv(held, "--port", str(mirror.port))
        taken = subprocess.run(command, capture_output=True, text=True, check=False)
    assert taken.returncode == 7
    assert f"hint: inhouse mirror --port {mirror.port + 1}" in taken.stderr


def test_people_get_the_line_for_other_machines(held: House, tmp_path: Path) -> None:
    key = tmp_path / "key"
    key.write_text("s3cret\n")
    for arguments, expected, missing in (
        (["--host", "0.0.0.0"], "no key is set", "HF_TOKEN"),
        (["--host", "0.0.0.0", "--key-file", str(key)], "HF_TOKEN=", "no key is set"),
        ([], "HF_ENDPOINT=http://127.0.0.1:", "no key is set"),
    ):
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = str(free.getsockname()[1])
        command = argv(held, "--port", port, *arguments)
        with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as running:
            assert running.stderr is not None
            said = b""
            while b"Ctrl-C ends it" not in said:
                said += running.stderr.readline()
            running.send_signal(signal.SIGTERM)
            out, more = running.communicate(timeout=20)
        text = (said + more).decode()
        assert expected in text and missing not in text and "s3cret" not in text
        assert f":{port} " in text and "inhouse pull MODEL" in text
        assert "org/big" in out.decode() and running.returncode == 0


@pytest.mark.parametrize("host", ["192.0.2.77", "no.such.host.invalid"])
def test_an_address_that_is_not_ours(held: House, host: str) -> None:
    ran = subprocess.run(argv(held, "--host", host), capture_output=True, text=True, check=False)
    assert ran.returncode == 2 and "mirror.host" in ran.stderr and host in ran.stderr
