"""Whatever is wrong with a bundle, `verify` and `import` see and tell it; nothing bad comes in."""

import io
import json
import os
import random
import shutil
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from serve.bundle import Trust, inspect
from serve.bundle.form import canonical
from serve.bundle.inspection import Report
from serve.bundle.part import MANIFEST, PART, header, member
from serve.errors import BadFile, HashMismatch, UnsafeWeights
from tests.bundle.forgery import END, rebuilt, with_file, with_manifest
from tests.bundle.machines import HUB_SPEC, Machine, dir_spec, members
from tests.store.models import Recorder, safetensors


def report(*parts: Path) -> Report:
    return inspect(parts, Trust(), Recorder())


def refused(there: Machine, *parts: Path) -> str:
    """Why the parts are not imported; nothing of them is there, not even in part."""
    with pytest.raises(BadFile) as told:
        there.take(*parts)
    assert there.store.manifests() == () and not (there.folder / "hf").exists()
    return told.value.problem


def test_a_good_bundle_is_good(bundle: Path, parts: tuple[Path, ...]) -> None:
    assert report(bundle).is_good
    whole = report(*reversed(parts))
    assert whole.is_good and sorted(part.number or 0 for part in whole.parts) == list(
        range(1, len(parts) + 1)
    )
    part = report(parts[1])
    assert not part.is_good and part.parts[0].problem is None
    assert part.missing == (1, *range(3, len(parts) + 1))


def test_a_bundle_that_is_cut_anywhere(there: Machine, bundle: Path) -> None:
    whole = bundle.read_bytes()
    chosen = random.Random(7)
    cuts = {0, 1, 511, 512, 513, len(whole) - 1, len(whole) - 1024, len(whole) - 1025}
    for cut in sorted(cuts | {chosen.randrange(len(whole)) for _ in range(60)}):
        bundle.write_bytes(whole[:cut])
        with pytest.raises(BadFile):
            if not report(bundle).is_good:
                raise BadFile("", "")
        with pytest.raises(BadFile):
            there.take(bundle)
    bundle.write_bytes(whole)
    assert there.take(bundle).weights and there.holds(HUB_SPEC)


def test_what_came_before_the_cut_is_kept(there: Machine, bundle: Path) -> None:
    whole = bundle.read_bytes()
    bundle.write_bytes(whole[: len(whole) // 2])
    assert refused(there, bundle).startswith("is cut: ")
    bundle.write_bytes(whole)
    there.seen.totals.clear()
    there.take(bundle)
    assert 0 < (there.seen.totals[0] or 0) < 40_000


def test_any_flipped_bit_is_seen(there: Machine, bundle: Path) -> None:
    whole = bundle.read_bytes()
    chosen = random.Random(11)
    for at in sorted(chosen.sample(range(len(whole)), 120)):
        changed = bytearray(whole)
        changed[at] ^= 1 << chosen.randrange(8)
        bundle.write_bytes(changed)
        with pytest.raises(BadFile):
            if not report(bundle).is_good:
                raise BadFile("", "")
        with pytest.raises(BadFile):
            there.take(bundle)
            pytest.fail(f"byte {at} was changed, and nobody saw it")
        # Good pieces are kept, so that the next bundle need not have them: not wanted here.
        shutil.rmtree(there.folder / "home" / "imports", ignore_errors=True)


def test_something_behind_the_end(there: Machine, bundle: Path) -> None:
    with bundle.open("ab") as file:
        file.write(b"more")
    assert refused(there, bundle) == "goes on behind its end: 4 bytes too many"
    assert report_problem(bundle) == "goes on behind its end: 4 bytes too many"


def report_problem(*parts: Path) -> str:
    try:
        return next(part.problem for part in report(*parts).parts if part.problem)
    except BadFile as error:
        return error.problem


def test_a_piece_is_damaged_others_are_kept(there: Machine, parts: tuple[Path, ...]) -> None:
    whole = parts[1].read_bytes()
    damaged = bytearray(whole)
    damaged[inside_a_piece(parts[1])] ^= 0xFF
    parts[1].write_bytes(damaged)
    found = report(*parts)
    assert [bool(part.problem) for part in found.parts] == [n == 1 for n in range(len(parts))]
    problem = refused(there, *parts)
    assert "is damaged; what is good of it is kept" in problem
    parts[1].write_bytes(whole)
    there.seen.totals.clear()
    there.take(*parts)
    assert there.seen.totals[0] == 4096 and there.holds(HUB_SPEC)


def inside_a_piece(part: Path) -> int:
    with tarfile.open(part, "r:") as archive:
        return next(one.offset_data for one in archive if one.size == 4096) + 1000


def test_pieces_out_of_order(there: Machine, bundle: Path) -> None:
    found = members(bundle)
    names = [name for name in found if name.startswith("pieces/")]
    head = {name: found[name] for name in found if name not in names}
    for order in (names[::-1], [*names[1:], names[0]]):
        bundle.write_bytes(rebuilt(head | {name: found[name] for name in order}))
        assert "has something else where piece" in refused(there, bundle)


def test_pieces_that_changed_their_places(there: Machine, bundle: Path) -> None:
    found = members(bundle)
    one, two = [n for n, body in found.items() if len(body) == 4096][:2]
    found[one], found[two] = found[two], found[one]
    bundle.write_bytes(rebuilt(found))
    assert "is damaged" in refused(there, bundle)


def test_a_piece_is_missing_or_there_twice(there: Machine, bundle: Path) -> None:
    found = members(bundle)
    name = next(name for name in found if name.startswith("pieces/"))
    bundle.write_bytes(rebuilt({n: body for n, body in found.items() if n != name}))
    assert "is cut" in refused(there, bundle)
    bundle.write_bytes(rebuilt(found)[: -len(END)] + member(name, found[name]) + END)
    assert "goes on behind its end" in refused(there, bundle)


def test_parts_of_different_bundles(here: Machine, there: Machine, stick: Path) -> None:
    one = here.export(stick / "1.inhouse", max_bytes=24_000).files
    two = here.export(stick / "2.inhouse", max_bytes=24_000, piece_bytes=8192).files
    assert "another bundle" in report_problem(one[0], two[1])
    with pytest.raises(BadFile, match="another bundle"):
        there.take(*one, two[0])


def test_a_part_that_says_it_is_another(there: Machine, parts: tuple[Path, ...]) -> None:
    found = members(parts[0])
    found[PART] = canonical(json.loads(found[PART]) | {"number": 2})
    parts[0].write_bytes(rebuilt(found))
    problem = refused(there, parts[0])
    assert "has something else where piece" in problem or "goes on behind" in problem
    found[PART] = canonical(json.loads(found[PART]) | {"number": 99})
    parts[0].write_bytes(rebuilt(found))
    assert refused(there, parts[0]) == "part.json names a part that there is not: 99"
    found[PART] = canonical(json.loads(found[PART]) | {"number": 1, "bundle": "0" * 64})
    parts[0].write_bytes(rebuilt(found))
    assert refused(there, parts[0]) == "part.json is of another bundle"


MANIFEST_CHANGES: dict[str, Callable[[dict[str, Any]], object]] = {
    "its format is '2'": lambda m: m.update(format=2),
    "its format is 'None'": lambda m: m.pop("format"),
    "surprise": lambda m: m.update(surprise=1),
    "created_at": lambda m: m.update(created_at=2**40),
    "piece_bytes": lambda m: m.update(piece_bytes=2**40),
    "wrong number of pieces": lambda m: m["contents"][0].update(size=10**9),
    "has no content of its size": lambda m: m["models"][0]["files"][0].update(size=1),
    "impossible way": lambda m: m.update(parts=[1, 1]),
    "the same model twice": lambda m: m["models"].append(m["models"][0]),
    "holds no model": lambda m: m.update(models=[], contents=[], parts=[0]),
    "belongs to no file": lambda m: m["models"][0]["files"].pop(),
    "no id of the Hub": lambda m: m["models"][0]["files"][0].update(oid=None),
    "two different sha256": lambda m: m["models"][0]["files"][0].update(oid="0" * 64),
    "signs that cannot be printed": lambda m: m["models"][0].update(license="\x1b[2J"),
    "models.0.name": lambda m: m["models"][0].update(name="../x"),
    "its revision is no commit": lambda m: m["models"][0].update(revision="0" * 64),
}


@pytest.mark.parametrize("problem", MANIFEST_CHANGES)
def test_a_manifest_that_contradicts_itself(there: Machine, bundle: Path, problem: str) -> None:
    with_manifest(bundle, MANIFEST_CHANGES[problem])
    assert problem in report_problem(bundle)
    assert problem in refused(there, bundle)


@pytest.mark.parametrize(
    "path",
    ["../../etc/passwd", "/etc/passwd", "a/../../b", "a//b", ".hidden", "a\\b", "x" * 300, "a\n"]
    + ["tokenizer.json/x", "", "~/x", "ä.json"],
)
def test_a_path_that_leads_elsewhere(there: Machine, bundle: Path, path: str) -> None:
    def change(record: dict[str, Any]) -> None:
        record["models"][0]["files"][0]["path"] = path

    with_manifest(bundle, change)
    assert "its manifest is wrong" in (told := refused(there, bundle)) or "a file too" in told
    assert not (there.folder / "etc").exists()


def test_paths_that_differ_by_case_only(there: Machine, bundle: Path) -> None:
    def change(record: dict[str, Any]) -> None:
        record["models"][0]["files"][0]["path"] = "Tokenizer.JSON"

    with_manifest(bundle, change)
    assert "the same path, case apart, twice" in refused(there, bundle)


def test_a_manifest_in_other_words(there: Machine, bundle: Path) -> None:
    found = members(bundle)
    found[MANIFEST] = json.dumps(json.loads(found[MANIFEST]), indent=1).encode()
    bundle.write_bytes(rebuilt(found))
    assert refused(there, bundle) == "its manifest is not written in the canonical way"
    found[MANIFEST] = b"[" * 100_000
    bundle.write_bytes(rebuilt(found))
    assert refused(there, bundle) == "its manifest is not JSON"


def test_a_manifest_without_end_is_not_read(there: Machine, bundle: Path) -> None:
    bundle.write_bytes(header(MANIFEST, 2**32))
    os.truncate(bundle, 2**32 + 512)  # a hole, as a bomb would have it
    assert refused(there, bundle) == f"manifest.json is too large: {2**32} bytes"


def strange(**change: object) -> bytes:
    """A tar whose first member is something that tar knows and a bundle does not."""
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w", format=tarfile.PAX_FORMAT) as archive:
        info = tarfile.TarInfo(MANIFEST)
        for key, value in change.items():
            setattr(info, key, value)
        archive.addfile(info, io.BytesIO(b"{}" if info.size else b""))
    return packed.getvalue()


@pytest.mark.parametrize(
    "change",
    [
        {"type": tarfile.SYMTYPE, "linkname": "/etc/passwd"},
        {"type": tarfile.LNKTYPE, "linkname": "manifest.json"},
        {"type": tarfile.CHRTYPE, "devmajor": 1},
        {"type": tarfile.FIFOTYPE},
        {"type": tarfile.DIRTYPE},
        {"size": 2, "pax_headers": {"path": "../../x"}},
        {"size": 2, "uid": 1000},
        {"size": 2, "name": "x" * 300},
        {"size": 2, "name": "../manifest.json"},
    ],
)
def test_members_that_are_no_plain_files(
    there: Machine, bundle: Path, change: dict[str, object]
) -> None:
    bundle.write_bytes(strange(**change))
    assert refused(there, bundle).startswith("is no bundle")


@pytest.mark.parametrize("content", [b"", b"x", b"PK\3\4" + bytes(2000), bytes(10240)])
def test_files_that_are_no_bundles(there: Machine, bundle: Path, content: bytes) -> None:
    bundle.write_bytes(content)
    assert refused(there, bundle) == "is no bundle"


def test_places_that_are_no_files(there: Machine, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")  # reading it would wait for ever
    assert refused(there, tmp_path / "fifo") == "is no file"
    assert refused(there, tmp_path) == "is no file"
    assert refused(there, tmp_path / "none") == "cannot be read: No such file or directory"


def test_members_at_wrong_places(there: Machine, bundle: Path) -> None:
    found = members(bundle)
    manifest, part = found.pop(MANIFEST), found.pop(PART)
    bundle.write_bytes(rebuilt({PART: part, MANIFEST: manifest} | found))
    assert refused(there, bundle).startswith("is no bundle")
    twice = member(MANIFEST, manifest) * 2 + member(PART, part)
    bundle.write_bytes(twice + rebuilt(found))
    assert refused(there, bundle) == "manifest.json stands at the wrong place, or twice"


def test_weights_that_lie_about_themselves(there: Machine, bundle: Path) -> None:
    """A bundle that is consistent in itself, and was made to harm."""
    with_file(bundle, "model.safetensors", b"\xff" * 20_000, None)
    assert report(bundle).is_good, "the container is right"
    with pytest.raises(UnsafeWeights):
        there.take(bundle)
    assert there.store.manifests() == () and there.staged() == []


def test_settings_that_name_code(there: Machine, bundle: Path) -> None:
    config = {"auto_map": {"AutoModel": "evil.Model"}, "architectures": ["X"]}
    with_file(bundle, "config.json", json.dumps(config).encode(), None)
    with pytest.raises(UnsafeWeights, match="auto_map"):
        there.take(bundle)
    assert there.store.manifests() == ()


@pytest.mark.parametrize("path", ["evil.py", "pytorch_model.bin", "run.sh", "a/b.json"])
def test_files_that_we_do_not_load(there: Machine, bundle: Path, path: str) -> None:
    def change(record: dict[str, Any]) -> None:
        record["models"][0]["files"][0]["path"] = path

    with_manifest(bundle, change)
    with pytest.raises(UnsafeWeights, match="is nothing that we load"):
        there.take(bundle)
    assert there.staged() == []


def test_a_git_id_that_is_not_true(there: Machine, bundle: Path) -> None:
    def change(record: dict[str, Any]) -> None:
        [file] = [f for f in record["models"][0]["files"] if f["path"] == "config.json"]
        file["oid"] = "0" * 40

    with_manifest(bundle, change)
    with pytest.raises(HashMismatch):
        there.take(bundle)
    assert there.store.manifests() == () and not (there.folder / "hf").exists()


def test_the_hub_is_believed_more_than_a_bundle(here: Machine, bundle: Path) -> None:
    """A forged config.json under a commit that was pulled from the Hub itself."""
    with_file(bundle, "config.json", b'{"architectures": ["Other"]}', None)
    held = here.store.manifest(HUB_SPEC)
    before = (held.path / "config.json").read_bytes()
    with pytest.raises(HashMismatch, match=r"config\.json of org/tiny"):
        here.take(bundle)
    assert (held.path / "config.json").read_bytes() == before and here.holds(HUB_SPEC)


def test_a_refused_model_does_not_stay(tmp_path: Path, stick: Path) -> None:
    model = dir_spec(tmp_path / "mine")
    here, there = (Machine(tmp_path / name, (model,)) for name in ("here", "there"))
    here.store.pull(model)
    [bundle] = here.export(stick / "d.inhouse").files
    with_file(bundle, "model.safetensors", safetensors({"w": b"x" * 99})[:-1], None)
    with pytest.raises(UnsafeWeights):
        there.take(bundle)
    assert there.staged() == [] and list((tmp_path / "there/home/weights").iterdir()) == []
