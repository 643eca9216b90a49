"""Bad input and faults, one by one. What is listed here has a test of its own:

truncated, extended, bit-flipped, swapped, renamed, zero-filled shards:
    test_a_bad_shard_on_the_way, test_a_bad_shard_on_the_disk,
    test_a_bad_shard_that_only_verify_sees, test_swapped_shards_on_the_disk,
    test_a_renamed_file_is_one_that_is_missing
a header whose offsets overlap or overflow: test_a_header_that_lies
an index that names a missing shard: test_an_index_that_lies
a path with `..`, an absolute path, a case-only collision, a 300-character name:
    test_a_name_in_a_listing, test_a_name_in_an_index
a symlink out of the folder: test_a_link_out_of_the_folder,
    tests/store/test_view.py::test_a_link_that_leads_out_later_is_refused
a bundle cut anywhere: tests/bundle/test_bad_bundles.py::test_a_bundle_that_is_cut_anywhere
pieces missing: tests/bundle/test_bad_bundles.py::test_a_piece_is_missing_or_there_twice,
    tests/bundle/test_round_trip.py::test_missing_parts_are_named
pieces out of order: tests/bundle/test_bad_bundles.py::test_pieces_out_of_order
an unknown format version: test_an_unknown_format,
    tests/bundle/test_form.py::test_anything_else_is_refused
a wrong signature: tests/bundle/test_signature.py::test_a_signature_of_another_manifest,
    tests/bundle/test_signature.py::test_who_must_sign
ENOSPC at every write: tests/campaigns/test_campaigns.py::test_a_full_disk_leaves_all_or_nothing,
    tests/bundle/test_crashes.py::test_the_disk_becomes_full_at_any_write
kill -9 at random moments:
    tests/campaigns/test_campaigns.py::test_a_process_that_is_killed_leaves_all_or_nothing
1,000 different mutations: tests/campaigns/test_campaigns.py::test_mutations_are_refused,
    tests/engine/test_mutations.py::test_the_unmutated_one_loads_and_answers
"""

import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pytest

from serve.errors import BadFile, HashMismatch, StoreError, UnsafeWeights, WeightsDamaged
from serve.lock import read_lock
from serve.sources import DirSource, HubSource
from tests.campaigns.subject import INDEX, SHARDS, joined, parted, subject
from tests.fakes.fake_hub import FakeHub
from tests.store.models import HUB_SPEC, REPO, nothing_is_held, spec, store_at

ROOT = Path(__file__).parents[2]
FILES = subject()
ONE, OTHER = (FILES[name] for name in SHARDS)
BAD: dict[str, Callable[[bytes], bytes]] = {
    "truncated": lambda shard: shard[:-1],
    "truncated in its header": lambda shard: shard[:20],
    "empty": lambda shard: b"",
    "extended": lambda shard: shard + b"\0",
    "a bit of its header flipped": lambda shard: shard[:12] + bytes([shard[12] ^ 1]) + shard[13:],
    "a bit of its data flipped": lambda shard: shard[:-1] + bytes([shard[-1] ^ 0x80]),
    "swapped": lambda shard: OTHER,
    "zero-filled": lambda shard: bytes(len(shard)),
    "zero-filled at its end": lambda shard: shard[:-100] + bytes(100),
}
cases = pytest.mark.parametrize("bad", BAD.values(), ids=BAD.keys())


@pytest.fixture
def hub() -> Iterator[FakeHub]:
    with FakeHub({REPO: FILES}) as running:
        yield running


@cases
def test_a_bad_shard_on_the_way(
    tmp_path: Path, hub: FakeHub, bad: Callable[[bytes], bytes]
) -> None:
    hub.faults.lie[SHARDS[0]] = bad(ONE)
    with pytest.raises(HashMismatch) as caught:
        store_at(tmp_path, hub.endpoint).pull(HUB_SPEC)
    assert caught.value.file == SHARDS[0] and nothing_is_held(tmp_path)


@cases
def test_a_bad_shard_on_the_disk(
    tmp_path: Path, hub: FakeHub, bad: Callable[[bytes], bytes]
) -> None:
    store = store_at(tmp_path, hub.endpoint)
    (store.pull(HUB_SPEC).path / SHARDS[0]).write_bytes(bad(ONE))
    for _ in range(2):  # found the first time, remembered the second
        with pytest.raises(WeightsDamaged) as caught:
            store.ready(HUB_SPEC)
        assert caught.value.file == SHARDS[0]
    assert store.pull(HUB_SPEC).damage is None
    assert (store.ready(HUB_SPEC).view / SHARDS[0]).read_bytes() == ONE


@pytest.mark.parametrize("bad", [bad for bad in BAD.values() if len(bad(ONE)) == len(ONE)])
def test_a_bad_shard_that_only_verify_sees(tmp_path: Path, bad: Callable[[bytes], bytes]) -> None:
    """The seal is made to agree with what a cheap look at the changed file shows."""
    for name, content in FILES.items():
        (tmp_path / "model" / name).parent.mkdir(exist_ok=True)
        (tmp_path / "model" / name).write_bytes(content)
    store, asked = store_at(tmp_path), spec(DirSource(tmp_path / "model"))
    store.pull(asked)
    (tmp_path / "model" / SHARDS[0]).write_bytes(bad(ONE))
    [seal] = (tmp_path / "home" / "manifests").glob("*.json")
    record = json.loads(seal.read_bytes())
    shows = (tmp_path / "model" / SHARDS[0]).stat()
    [shard] = [one for one in record["files"] if one["path"] == SHARDS[0]]
    shard |= {"mtime_ns": shows.st_mtime_ns, "ctime_ns": shows.st_ctime_ns}
    seal.write_text(json.dumps(record))
    assert store.weights(asked).damage is None
    with pytest.raises(WeightsDamaged) as caught:
        store.verify(asked.name)
    assert caught.value.file == SHARDS[0]
    with pytest.raises(WeightsDamaged):
        store.ready(asked)


def test_swapped_shards_on_the_disk(tmp_path: Path, hub: FakeHub) -> None:
    """Swapped links are set right; swapped content is damage."""
    store = store_at(tmp_path, hub.endpoint)
    path = store.pull(HUB_SPEC).path
    for name, content in zip(SHARDS, (OTHER, ONE), strict=True):
        (path / name).write_bytes(content)
    with pytest.raises(WeightsDamaged):
        store.ready(HUB_SPEC)


@pytest.mark.parametrize("name", [*SHARDS, INDEX, "config.json"])
def test_a_renamed_file_is_one_that_is_missing(tmp_path: Path, hub: FakeHub, name: str) -> None:
    path = store_at(tmp_path, hub.endpoint).pull(HUB_SPEC).path
    (path / name).rename(path / f"x-{name}")
    with FakeHub({}) as empty, pytest.raises(StoreError):
        store_at(tmp_path, empty.endpoint).ready(HUB_SPEC)
    again = store_at(tmp_path, hub.endpoint).ready(HUB_SPEC)
    assert (again.view / name).read_bytes() == FILES[name]


HUGE = 2**63 - 1
LIES: dict[str, dict[str, object]] = {
    "overlap": {"data_offsets": [128, 384]},
    "a hole": {"data_offsets": [300, 556]},
    "beyond the end": {"data_offsets": [10**6, 10**6 + 256]},
    "overflow": {"data_offsets": [HUGE - 255, HUGE + 1]},
    "overflow of 64 bits": {"data_offsets": [2**64 - 256, 2**64]},
    "a shape that overflows": {"shape": [2**32, 2**32]},
    "negative": {"data_offsets": [-256, 0]},
    "backwards": {"data_offsets": [512, 256]},
    "fractions": {"data_offsets": [256.5, 512]},
    "another dtype": {"dtype": "F32"},
}


@pytest.mark.parametrize("lie", LIES.values(), ids=LIES.keys())
def test_a_header_that_lies(tmp_path: Path, hub: FakeHub, lie: dict[str, object]) -> None:
    header, data = parted(ONE)
    second = list(header)[2]
    header[second] |= lie
    hub.repos[REPO][SHARDS[0]] = joined(header, data)
    with pytest.raises(UnsafeWeights) as caught:
        store_at(tmp_path, hub.endpoint).pull(HUB_SPEC)
    assert caught.value.file == SHARDS[0] and nothing_is_held(tmp_path)


NAMES = {
    "missing": "model-00003-of-00002.safetensors",
    "above": "../model.safetensors",
    "above and back": "../../hub/x/model.safetensors",
    "absolute": "/etc/model.safetensors",
    "300 characters": f"{'x' * 288}.safetensors",
    "a pickle": "pytorch_model.bin",
    "a zero byte": "model\0.safetensors",
    "no text": 7,
    "nothing": None,
}


@pytest.mark.parametrize("name", NAMES.values(), ids=NAMES.keys())
def test_an_index_that_lies(tmp_path: Path, hub: FakeHub, name: object) -> None:
    index = json.loads(FILES[INDEX])
    index["weight_map"]["head"] = name
    hub.repos[REPO][INDEX] = json.dumps(index).encode()
    with pytest.raises(UnsafeWeights) as caught:
        store_at(tmp_path, hub.endpoint).pull(HUB_SPEC)
    assert caught.value.file == INDEX and nothing_is_held(tmp_path)


@pytest.mark.parametrize("name", [n for n in NAMES.values() if isinstance(n, str)][1:])
def test_a_name_in_an_index(tmp_path: Path, hub: FakeHub, name: str) -> None:
    """The shard of that name is there, with its true hash; the name alone is what is wrong."""
    files = hub.repos[REPO]
    files[name] = files.pop(SHARDS[1])
    files[INDEX] = FILES[INDEX].replace(json.dumps(SHARDS[1]).encode(), json.dumps(name).encode())
    before = set(tmp_path.parent.iterdir())
    with pytest.raises(UnsafeWeights):
        store_at(tmp_path, hub.endpoint).pull(HUB_SPEC)
    assert nothing_is_held(tmp_path) and set(tmp_path.parent.iterdir()) == before


@pytest.mark.parametrize(
    "name",
    ["../config.json", "a/../../x.json", "/etc/x.json", "..\\x.json", "CONFIG.json", "~/x.json",
     "Model-00001-of-00002.safetensors", "\uff43onfig.json", "x\n.json"],
)  # fmt: skip
def test_a_name_in_a_listing(tmp_path: Path, hub: FakeHub, name: str) -> None:
    hub.repos[REPO][name] = b"{}"
    before = set(tmp_path.parent.iterdir())
    with pytest.raises(UnsafeWeights):
        store_at(tmp_path, hub.endpoint).pull(HUB_SPEC)
    assert nothing_is_held(tmp_path) and set(tmp_path.parent.iterdir()) == before


def test_a_long_name_that_nobody_needs_is_not_fetched(tmp_path: Path, hub: FakeHub) -> None:
    hub.repos[REPO][f"{'x' * 295}.json"] = b"{}"
    weights = store_at(tmp_path, hub.endpoint).pull(HUB_SPEC)
    assert {file.name for file in weights.path.iterdir()} == FILES.keys()


def test_another_commit_than_the_one_asked_for(tmp_path: Path, hub: FakeHub) -> None:
    hub.faults.any_revision = True
    with pytest.raises(HashMismatch) as caught:
        store_at(tmp_path, hub.endpoint).pull(spec(HubSource(REPO, "a" * 40)))
    assert (caught.value.expected, caught.value.actual) == ("a" * 40, hub.commit(REPO))
    assert nothing_is_held(tmp_path)


@pytest.mark.parametrize("name", ["config.json", "tokenizer.json", INDEX])
def test_settings_without_end_are_not_fetched(tmp_path: Path, hub: FakeHub, name: str) -> None:
    url = f"{hub.endpoint}/api/models/{REPO}/revision/main"
    listing = httpx.get(url, params={"blobs": True}).json()
    [row] = [row for row in listing["siblings"] if row["rfilename"] == name]
    row["size"] = 2**40
    hub.faults.info = json.dumps(listing).encode()
    with pytest.raises(UnsafeWeights) as caught:
        store_at(tmp_path, hub.endpoint).pull(HUB_SPEC)
    assert caught.value.file == name and hub.asked_for("GET", "/resolve/") == []


@pytest.mark.parametrize("name", [SHARDS[0], "config.json", "tokenizer.json"])
def test_a_link_out_of_the_folder(tmp_path: Path, name: str) -> None:
    folder = tmp_path / "model"
    folder.mkdir()
    for file, content in FILES.items():
        (folder / file).write_bytes(content)
    (folder / name).rename(tmp_path / "outside")
    (folder / name).symlink_to(tmp_path / "outside")
    with pytest.raises(UnsafeWeights) as caught:
        store_at(tmp_path).ready(spec(DirSource(folder)))
    assert caught.value.file == name


@pytest.mark.parametrize("version", [0, 2, "1", None, 10**30])
def test_an_unknown_format(tmp_path: Path, version: object) -> None:
    file = tmp_path / "models.lock"
    file.write_text(json.dumps({"format": version, "models": {}}))
    with pytest.raises(BadFile):
        read_lock(file)


def test_what_is_listed_above_is_there() -> None:
    for file, name in re.findall(r"(?:(tests/\S+\.py)::)?(test_\w+)", str(__doc__)):
        text = (ROOT / (file or "tests/store/test_bad_input.py")).read_text()
        assert f"def {name}(" in text, f"{file}: {name}"
