"""The real `huggingface_hub` client against a mirror."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from huggingface_hub import HfApi, HfFileSystem, hf_hub_download, snapshot_download
from huggingface_hub.errors import (
    GatedRepoError,
    RemoteEntryNotFoundError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)
from huggingface_hub.hf_api import RepoFile, RepoFolder

from serve.mirror import Terms
from serve.mirror.oid import git_blob_id, pointer
from tests.mirror.houses import COMMIT, House, Running, serving

FILES = {
    "config.json": b'{"a": 1}',
    "empty.txt": b"",
    "model.safetensors": bytes(range(256)) * 4000,
    "onnx/deep/er.json": b"[]",
    "with space+plus.json": b"{}",
}


@pytest.fixture
def mirror(house: House) -> Iterator[Running]:
    house.hold("org/m", FILES)
    with serving(house.store) as running:
        yield running


@pytest.fixture
def api(mirror: Running) -> HfApi:
    return HfApi(endpoint=mirror.endpoint, token=False)


def content(folder: str) -> dict[str, bytes]:
    root = Path(folder)
    found = (path for path in root.rglob("*") if path.is_file())
    return {path.relative_to(root).as_posix(): path.read_bytes() for path in found}


@pytest.mark.parametrize("revision", [None, "main", COMMIT])
def test_snapshot_download(mirror: Running, tmp_path: Path, revision: str | None) -> None:
    folder = snapshot_download(
        "org/m", revision=revision, endpoint=mirror.endpoint, cache_dir=tmp_path, token=False
    )
    assert content(folder) == FILES
    assert Path(folder).name == COMMIT


def test_the_cache_is_laid_out_as_from_the_hub(mirror: Running, tmp_path: Path) -> None:
    snapshot_download("org/m", endpoint=mirror.endpoint, cache_dir=tmp_path, token=False)
    blobs = {path.name for path in (tmp_path / "models--org--m" / "blobs").iterdir()}
    assert git_blob_id(FILES["config.json"]) in blobs
    assert any(len(name) == 64 for name in blobs)


def test_hf_hub_download_goes_on_where_it_was_stopped(mirror: Running, tmp_path: Path) -> None:
    whole = FILES["model.safetensors"]
    first = hf_hub_download(
        "org/m",
        "model.safetensors",
        endpoint=mirror.endpoint,
        local_dir=tmp_path / "a",
        token=False,
    )
    assert Path(first).read_bytes() == whole
    before = mirror.metric('inhouse_mirror_sent_bytes_total{repo="org/m"}')
    answer = mirror.ask("/org/m/resolve/main/model.safetensors", Range="bytes=1000000-")
    assert (answer.status, answer.body) == (206, whole[1000000:])
    sent = mirror.metric('inhouse_mirror_sent_bytes_total{repo="org/m"}') - before
    assert sent == len(whole) - 1000000


def test_model_info(api: HfApi) -> None:
    found = api.model_info("org/m", files_metadata=True)
    assert (found.id, found.sha, found.tags) == ("org/m", COMMIT, ["license:apache-2.0"])
    assert found.siblings is not None
    sizes = {one.rfilename: one.size for one in found.siblings}
    assert sizes == {path: len(data) for path, data in FILES.items()}
    for one in found.siblings:
        data = FILES[one.rfilename]
        if one.lfs:
            text = pointer(one.lfs.sha256, len(data))
            assert (one.blob_id, one.lfs.pointer_size) == (git_blob_id(text), len(text))
        else:
            assert one.blob_id == git_blob_id(data)
    plain = api.model_info("org/m", revision="main")
    assert plain.siblings and all(one.size is None for one in plain.siblings)


def test_list_repo_tree(api: HfApi) -> None:
    every = {row.path: row for row in api.list_repo_tree("org/m", recursive=True, expand=True)}
    assert set(every) == set(FILES) | {"onnx", "onnx/deep"}
    assert all(row.last_commit and row.last_commit.oid == COMMIT for row in every.values())
    top = {row.path: type(row) for row in api.list_repo_tree("org/m")}
    assert top["onnx"] is RepoFolder and top["config.json"] is RepoFile
    assert "onnx/deep" not in top
    assert [row.path for row in api.list_repo_tree("org/m", "onnx/deep")] == ["onnx/deep/er.json"]
    with pytest.raises(RemoteEntryNotFoundError):
        list(api.list_repo_tree("org/m", "none"))


def test_looking_around(api: HfApi) -> None:
    assert [one.id for one in api.list_models(search="M")] == ["org/m"]
    assert [one.id for one in api.list_models(author="org", limit=1)] == ["org/m"]
    assert list(api.list_models(search="no such")) == []
    assert {one.name: one.target_commit for one in api.list_repo_refs("org/m").branches} == {
        "main": COMMIT
    }
    found = api.get_paths_info("org/m", ["onnx", "config.json", "none"])
    assert [row.path for row in found] == ["onnx", "config.json"]
    assert api.file_exists("org/m", "config.json") and not api.file_exists("org/m", "none")
    assert api.repo_exists("org/m") and not api.repo_exists("org/none")
    assert api.whoami(token="any")["type"] == "user"


def test_the_file_system(mirror: Running) -> None:
    files = HfFileSystem(endpoint=mirror.endpoint, token=False, skip_instance_cache=True)
    assert sorted(map(str, files.ls("org/m", detail=False))) == sorted(
        f"org/m/{name}" for name in [*(n for n in FILES if "/" not in n), "onnx"]
    )
    with files.open("org/m/model.safetensors", block_size=65536) as opened:
        opened.seek(100_000)
        assert opened.read(1000) == FILES["model.safetensors"][100_000:101_000]


def test_what_is_not_there(mirror: Running, tmp_path: Path) -> None:
    def get(repo: str, file: str = "config.json", revision: str = "main") -> str:
        return hf_hub_download(
            repo, file, revision=revision, endpoint=mirror.endpoint, cache_dir=tmp_path, token=False
        )

    with pytest.raises(RepositoryNotFoundError):
        get("org/none")
    with pytest.raises(RevisionNotFoundError):
        get("org/m", revision="v9")
    with pytest.raises(RemoteEntryNotFoundError):
        get("org/m", file="README.md")


def test_with_a_key(house: House, tmp_path: Path) -> None:
    house.hold("org/m", FILES)
    with serving(house.store, Terms(key="s3cret")) as mirror:
        folder = snapshot_download(
            "org/m", token="s3cret", endpoint=mirror.endpoint, cache_dir=tmp_path
        )
        assert content(folder) == FILES
        for token in (False, "wrong", "s3cre", "s3cret2"):
            api = HfApi(endpoint=mirror.endpoint, token=token)
            for repo in ("org/m", "org/none"):
                with pytest.raises(GatedRepoError, match="401"):
                    api.model_info(repo)
        assert mirror.ask("/healthz").status == 200
        for path in ("/metrics", "/api/models", "/none", "//healthz", "/healthz?x=1/../metrics"):
            expected = 200 if path.startswith("/healthz") else 401
            assert mirror.ask(path).status == expected, path


def test_a_hidden_repository_looks_like_none(house: House) -> None:
    house.hold("org/m", FILES)
    house.hold("secret/m", FILES)
    with serving(house.store, None, "org/*") as mirror:
        for path in ("/api/models/{}", "/api/models/{}/tree/main", "/{}/resolve/main/config.json",
                     "/api/models/{}/refs", "/api/models/{}/revision/x"):  # fmt: skip
            hidden, none = (mirror.ask(path.format(name)) for name in ("secret/m", "secret/none"))
            assert hidden.status == none.status == 404
            assert hidden.body == none.body
            assert {**hidden.headers, "date": ""} == {**none.headers, "date": ""}
        assert b"secret" not in mirror.ask("/api/models").body


def test_damaged_weights_are_not_served(house: House, tmp_path: Path) -> None:
    seal = house.hold("org/m", FILES)
    with serving(house.store) as mirror:
        (seal.path / "model.safetensors").write_bytes(b"x" * len(FILES["model.safetensors"]))
        with pytest.raises(RevisionNotFoundError, match="410"):
            snapshot_download("org/m", endpoint=mirror.endpoint, cache_dir=tmp_path, token=False)
        assert mirror.ask("/org/m/resolve/main/model.safetensors").status == 410
        assert mirror.ask("/org/m/resolve/main/model.safetensors", "HEAD").status == 410
        assert mirror.ask("/org/m/resolve/main/config.json").body == FILES["config.json"]
        assert mirror.metric("inhouse_mirror_damaged_total") == 3
