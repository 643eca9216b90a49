"""How weights go: bytes that are true, others who are at work, kills at every single step."""

import contextlib
import shutil
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest

from serve.errors import NotPulled
from tests.fakes.fake_hub import FakeHub
from tests.store.keeping import blob, disk_bytes, renew
from tests.store.models import HUB_SPEC, REPO, model_files, safetensors, spec, store_at


@pytest.fixture
def hub() -> Iterator[FakeHub]:
    with FakeHub({REPO: model_files(300_000)}) as running:
        yield running


def test_removing_says_what_it_frees(tmp_path: Path, hub: FakeHub) -> None:
    store = store_at(tmp_path, hub.endpoint)
    store.pull(HUB_SPEC)
    renew(store, hub, **{"config.json": b'{"a": 1}'})
    store.pull(spec(HUB_SPEC.source, "other"))
    before = disk_bytes(tmp_path)
    assert store.remove("tiny") > 0
    assert store.remove("other") > 300_000
    assert disk_bytes(tmp_path) < before - 300_000
    assert store.manifests() == () and list(blob(tmp_path).iterdir()) == []
    with pytest.raises(NotPulled):
        store.remove("tiny")


CLEARER = """
import sys
from pathlib import Path
from tests.store.models import store_at
store = store_at(Path(sys.argv[1]))
print("ready", flush=True)
sys.stdin.readline()
store.clear()
print("done", flush=True)
"""


# Kills itself at the Nth change of a file: the moments at which a removal can be cut.
TRIPWIRE = """
import os, signal, sys
left = int(sys.argv[2])
def trip(event, arguments):
    global left
    if event in ("os.remove", "os.rmdir", "os.rename"):
        left -= 1
        if left < 0:
            os.kill(os.getpid(), signal.SIGKILL)
sys.addaudithook(trip)
"""


def test_killed_at_every_single_step_a_model_is_whole_or_gone(tmp_path: Path, hub: FakeHub) -> None:
    original = tmp_path / "original"
    store = store_at(original, hub.endpoint)
    old = store.pull(HUB_SPEC)
    store.ready(HUB_SPEC)
    renew(store, hub, **{"model.safetensors": safetensors({"w": b"y" * 200_000})})
    total = disk_bytes(original) - store.leftovers()[0].freed_bytes
    code, step = -9, 0
    while code == -9:
        place = tmp_path / f"step-{step}"
        shutil.copytree(original, place, symlinks=True)
        reseal(original, place)
        ran = subprocess.run(
            [sys.executable, "-c", TRIPWIRE + CLEARER, str(place), str(step)], input="\n",
            cwd=Path(__file__).parents[2], capture_output=True, text=True, check=False,
        )  # fmt: skip
        code = ran.returncode
        assert code in (0, -9), ran.stderr
        again = store_at(place)
        for held in again.list():
            assert held.is_complete, f"step {step}: half a model"
        again.clear()
        assert [one.revision == old.revision for one in again.manifests()] == [False]
        assert again.leftovers() == ()
        assert abs(disk_bytes(place) - total) < 200, f"step {step}: something was forgotten"
        step += 1
    assert step > 10


def reseal(original: Path, place: Path) -> None:
    """A copied house has its seals where they were."""
    for seal in (place / "home" / "manifests").glob("*.json"):
        text = seal.read_text().replace(str(original), str(place))
        seal.write_text(text)


def test_a_record_of_a_removal_is_nothing_once_the_weights_are_back(
    tmp_path: Path, hub: FakeHub
) -> None:
    store = store_at(tmp_path, hub.endpoint)
    weights = store.pull(HUB_SPEC)
    [seal] = (tmp_path / "home" / "manifests").glob("*.json")
    shutil.copy(seal, seal.with_name(seal.name + ".leaving"))
    [found] = store.clear()
    assert (found.what, found.freed_bytes) == ("removal", 0)
    assert replace(store.weights(HUB_SPEC), used_at=None) == weights
    assert store.leftovers() == ()


def test_a_removal_beside_somebody_else_s_pull_is_finished_later(
    tmp_path: Path, hub: FakeHub
) -> None:
    """The other model has the same repository, and may be about to use the files."""
    store = store_at(tmp_path, hub.endpoint)
    weights = store.pull(HUB_SPEC)
    hub.repos[REPO]["extra.json"] = b"{}"
    hub.repos[REPO]["model.safetensors"] = safetensors({"w": b"q" * 400_000})
    hub.faults.stall_at = 65536
    with ThreadPoolExecutor(1) as pool:
        pull = pool.submit(store_at(tmp_path, hub.endpoint).pull, spec(HUB_SPEC.source, "other"))
        assert hub.faults.stalled.wait(60)
        assert store.remove("tiny") == 0 and store.manifests() == ()
        assert (weights.path / "config.json").is_file()
        assert [(one.what, one.is_busy) for one in store.leftovers()] == [("removal", True)]
        hub.faults.resume.set()
        assert pull.result().is_complete
    [cleared] = store.clear()
    assert cleared.freed_bytes > 300_000 and not weights.path.exists()
    [other] = store.list()
    assert other.is_complete and store.leftovers() == ()


def test_a_full_disk_can_be_cleared(small_disk: Path, hub: FakeHub) -> None:
    store = store_at(small_disk, hub.endpoint)
    store.pull(HUB_SPEC)
    renew(store, hub, **{"model.safetensors": safetensors({"w": b"y" * 200_000})})
    with contextlib.suppress(OSError), (small_disk / "ballast").open("wb", buffering=0) as file:
        while file.write(b"x" * 4096):
            pass
    assert shutil.disk_usage(small_disk).free == 0
    [found] = store.clear()
    assert found.freed_bytes <= shutil.disk_usage(small_disk).free
    assert store.leftovers() == () and store.list()[0].is_complete


def test_a_link_to_a_folder_in_a_snapshot_is_not_followed(tmp_path: Path, hub: FakeHub) -> None:
    store = store_at(tmp_path, hub.endpoint)
    weights = store.pull(HUB_SPEC)
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "file").write_text("stays")
    (weights.path / "link").symlink_to(tmp_path / "elsewhere")
    assert store.remove("tiny") > 0 and not weights.path.exists()
    assert (tmp_path / "elsewhere" / "file").read_text() == "stays"
