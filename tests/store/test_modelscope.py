"""The ModelScope source, through its real client, against a ModelScope that misbehaves."""

import hashlib
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from serve.errors import (
    AccessDenied,
    ExtraMissing,
    HashMismatch,
    InhouseError,
    LockMismatch,
    RepoNotFound,
    SourceUnreachable,
    UnsafeWeights,
)
from serve.sources import ModelScopeSource
from serve.store import Store, modelscope
from serve.store.progress import Silent
from tests.fakes.fake_modelscope import FakeModelScope
from tests.store.models import (
    FETCHED,
    HUB_SPEC,
    REPO,
    Recorder,
    access_at,
    model_files,
    nothing_is_held,
    sharded_files,
    spec,
)

MIB = 2**20
SHARD = "model.safetensors"
SPEC = spec(ModelScopeSource(REPO))


@pytest.fixture
def scope() -> Iterator[FakeModelScope]:
    with FakeModelScope({REPO: model_files(3 * MIB)}) as running:
        yield running


def store_at(tmp_path: Path, scope: FakeModelScope) -> Store:
    access = replace(access_at(tmp_path), modelscope=scope.endpoint)
    return Store(tmp_path / "home", access)


def test_pull_fetches_the_model_and_nothing_else(tmp_path: Path, scope: FakeModelScope) -> None:
    recorder = Recorder()
    weights = store_at(tmp_path, scope).pull(SPEC, recorder)
    assert {path.name for path in weights.path.iterdir()} == FETCHED
    for name in FETCHED:
        assert (weights.path / name).read_bytes() == scope.repos[REPO][name]
    assert weights.path.parent == tmp_path / "home" / "weights"
    assert weights.kind == "modelscope" and weights.source == f"modelscope:{REPO}"
    assert weights.revision == weights.digest
    assert recorder.advanced == weights.total_bytes and recorder.files == len(FETCHED)
    assert [path.name for path in weights.path.parent.iterdir()] == [weights.path.name]


def test_sealed_weights_need_no_request(tmp_path: Path, scope: FakeModelScope) -> None:
    first = store_at(tmp_path, scope).pull(SPEC)
    scope.requests.clear()
    assert store_at(tmp_path, scope).pull(SPEC).digest == first.digest
    assert scope.requests == []


def test_nothing_is_told_about_us_and_nothing_printed_or_left(
    tmp_path: Path, scope: FakeModelScope, own_home: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    store_at(tmp_path, scope).pull(SPEC)
    agents = {one.headers["User-Agent"] for one in scope.requests}
    assert len(agents) == 1
    [agent] = agents
    assert agent.startswith("modelscope_hub/") and "inhouse/" in agent
    assert not any(word in agent for word in ("session", "platform", "processor", "user/", "env/"))
    assert {one.path.partition("?")[0].split("/")[-1] for one in scope.requests} <= {
        "files", "repo", SHARD,
    }  # fmt: skip
    said = capfd.readouterr()
    assert said.out == said.err == ""
    assert not list(own_home.glob(".modelscope*")) and not (own_home / ".cache").exists()
    assert not [path for path in own_home.rglob("*") if "modelscope" in path.name.lower()]


@pytest.mark.parametrize(
    ("status", "expected"),
    [
        (401, AccessDenied),
        (403, AccessDenied),
        (404, RepoNotFound),
        (429, SourceUnreachable),
        (500, SourceUnreachable),
    ],
)
def test_refusals(
    tmp_path: Path, scope: FakeModelScope, status: int, expected: type[InhouseError]
) -> None:
    scope.faults.refuse = status
    with pytest.raises(expected):
        store_at(tmp_path, scope).pull(SPEC)
    assert nothing_is_held(tmp_path)


@pytest.mark.parametrize(
    "source", [ModelScopeSource("org/other"), ModelScopeSource(REPO, "no-such-branch")]
)
def test_what_is_not_there(tmp_path: Path, scope: FakeModelScope, source: ModelScopeSource) -> None:
    with pytest.raises(RepoNotFound) as caught:
        store_at(tmp_path, scope).pull(spec(source))
    assert (caught.value.repo, caught.value.revision) == (source.repo, source.revision)


def test_nobody_answers(tmp_path: Path) -> None:
    access = replace(access_at(tmp_path), modelscope="http://127.0.0.1:9")
    with pytest.raises(SourceUnreachable) as caught:
        Store(tmp_path / "home", access).pull(SPEC)
    assert caught.value.source == "http://127.0.0.1:9"


@pytest.mark.parametrize(
    "listing", [b"<html>hotel</html>", b'{"Data": {"Files": [{"Path": 1}]}}', b"[1]"]
)
def test_an_answer_that_is_not_modelscopes(
    tmp_path: Path, scope: FakeModelScope, listing: bytes
) -> None:
    scope.faults.listing = listing
    with pytest.raises(SourceUnreachable):
        store_at(tmp_path, scope).pull(SPEC)


def test_without_hashes_nothing_is_taken(tmp_path: Path, scope: FakeModelScope) -> None:
    scope.faults.without_hash = True
    with pytest.raises(SourceUnreachable) as caught:
        store_at(tmp_path, scope).pull(SPEC)
    assert "no size or hash" in caught.value.reason


@pytest.mark.parametrize("file", [SHARD, "tokenizer.json"])
def test_wrong_bytes_never_become_weights(tmp_path: Path, scope: FakeModelScope, file: str) -> None:
    right = scope.repos[REPO][file]
    scope.faults.lie[file] = right[:-1] + bytes([right[-1] ^ 1])
    with pytest.raises(HashMismatch) as caught:
        store_at(tmp_path, scope).pull(SPEC)
    assert caught.value.file == file
    assert nothing_is_held(tmp_path)
    scope.faults.lie = {}
    weights = store_at(tmp_path, scope).pull(SPEC)
    assert (weights.path / file).read_bytes() == right


def test_a_busy_and_then_broken_server_is_asked_again(
    tmp_path: Path, scope: FakeModelScope
) -> None:
    scope.faults.busy, scope.faults.broken = 1, 1
    assert store_at(tmp_path, scope).pull(SPEC).total_bytes > 3 * MIB


def test_a_reset_connection_is_continued(tmp_path: Path) -> None:
    # Much more than the kernel holds back: what was not read yet is lost in a reset.
    with FakeModelScope({REPO: model_files(24 * MIB)}) as scope:
        scope.faults.reset_at, scope.faults.resets = 23 * MIB, 1
        recorder = Recorder()
        weights = store_at(tmp_path, scope).pull(SPEC, recorder)
        _, again = scope.asked_for("/cdn/")
    assert again.headers["Range"].startswith("bytes=")
    assert recorder.advanced == weights.total_bytes


CHILD = """
import sys
from dataclasses import replace
from pathlib import Path
from serve.store import Store
from tests.store.models import access_at, Recorder, tell
from serve.sources import ModelScopeSource
from tests.store.models import REPO, spec
SPEC = spec(ModelScopeSource(REPO))
access = replace(access_at(Path(sys.argv[1])), modelscope=sys.argv[2])
recorder = Recorder(on_advance=tell)
Store(Path(sys.argv[1]) / "home", access).pull(SPEC, recorder)
"""


def test_a_killed_pull_is_continued(tmp_path: Path) -> None:
    with FakeModelScope({REPO: model_files(12 * MIB)}) as scope:
        scope.faults.stall_at = 8 * MIB
        argv = [sys.executable, "-c", CHILD, str(tmp_path), scope.endpoint]
        root = Path(__file__).parents[2]
        with subprocess.Popen(argv, cwd=root, stdout=subprocess.PIPE) as child:
            assert child.stdout is not None
            told = 0
            while told < 6 * MIB:
                told += int(child.stdout.readline())
            child.kill()
        assert nothing_is_held(tmp_path)
        scope.faults.stall_at = None
        sent = scope.sent_bytes
        assert store_at(tmp_path, scope).pull(SPEC).total_bytes > 12 * MIB
        assert scope.sent_bytes - sent < 8 * MIB
    assert len(list((tmp_path / "home" / "weights").iterdir())) == 1


def test_a_branch_that_moved_since_a_killed_pull(tmp_path: Path) -> None:
    files = sharded_files(2, MIB)
    with FakeModelScope({REPO: files}) as scope:
        scope.faults.lie["model-00002-of-00002.safetensors"] = b"?"
        with pytest.raises(HashMismatch):
            store_at(tmp_path, scope).pull(SPEC)
        scope.faults.lie = {}
        scope.repos[REPO] = model_files()
        weights = store_at(tmp_path, scope).pull(SPEC)
    assert {path.name for path in weights.path.iterdir()} == FETCHED


def test_a_repository_that_needs_its_own_python(tmp_path: Path, scope: FakeModelScope) -> None:
    scope.repos[REPO]["config.json"] = b'{"auto_map": {"AutoConfig": "modeling_tiny.Config"}}'
    with pytest.raises(UnsafeWeights):
        store_at(tmp_path, scope).pull(SPEC)
    assert scope.asked_for("/cdn/") == []


def test_files_are_what_is_locked(tmp_path: Path, scope: FakeModelScope) -> None:
    access = replace(access_at(tmp_path), modelscope=scope.endpoint)
    place = tmp_path / "home" / "weights" / "tiny"
    locked = {name: hashlib.sha256(scope.repos[REPO][name]).hexdigest() for name in FETCHED}
    wrong = locked | {SHARD: "0" * 64}
    with pytest.raises(LockMismatch) as caught:
        modelscope.fetch(ModelScopeSource(REPO), place, access, Silent(), wrong)
    assert (caught.value.what, caught.value.actual) == (SHARD, locked[SHARD])
    assert scope.asked_for("/cdn/") == []
    found = modelscope.fetch(ModelScopeSource(REPO), place, access, Silent(), locked)
    assert {record.path: record.sha256 for record in found.files} == locked


def test_without_the_extra(tmp_path: Path) -> None:
    """In a process where the package is not to be found."""
    program = "import sys; sys.modules['modelscope_hub'] = None\n" + CHILD
    argv = [sys.executable, "-c", program, str(tmp_path), "http://127.0.0.1:9"]
    root = Path(__file__).parents[2]
    ended = subprocess.run(argv, cwd=root, capture_output=True, text=True, env=os.environ)
    assert ended.returncode != 0
    error = ExtraMissing("pull from ModelScope", "modelscope")
    assert str(error) in ended.stderr.splitlines()[-1]


def test_it_is_not_the_hub(tmp_path: Path, scope: FakeModelScope) -> None:
    store = store_at(tmp_path, scope)
    store.pull(SPEC)
    with pytest.raises(SourceUnreachable):
        store.pull(HUB_SPEC)
