"""The Hub's own JSON about repositories, revisions and files. Pure but for the names of content."""

from collections.abc import Callable, Collection, Iterable, Iterator
from datetime import UTC, datetime
from typing import Any

from serve.mirror.oid import folder_id, git_blob_id, pointer
from serve.mirror.stock import File, Repo, Revision

Oid = Callable[[File], str]


def info(revision: Revision, oid: Oid, with_blobs: bool) -> dict[str, Any]:
    """What `/api/models/R/revision/V` answers; with `?blobs=true`, sizes and hashes too."""
    rows = (
        sibling(file, oid) if with_blobs else {"rfilename": file.path} for file in _all(revision)
    )
    return summary(revision) | {"siblings": list(rows)}


def summary(revision: Revision) -> dict[str, Any]:
    """A repository in a listing of many."""
    at = _time(revision)
    return {
        "_id": revision.commit[:24], "id": revision.repo, "modelId": revision.repo,
        "author": revision.repo.split("/")[0], "sha": revision.commit, "lastModified": at,
        "createdAt": at, "private": False, "gated": False, "disabled": False,
        "downloads": 0, "likes": 0,
        "tags": [f"license:{revision.license.lower()}"] if revision.license else [],
    }  # fmt: skip


def sibling(file: File, oid: Oid) -> dict[str, Any]:
    """A file as a revision's listing has it."""
    row: dict[str, Any] = {"rfilename": file.path, "size": file.size, "blobId": _git_id(file, oid)}
    if lfs := _lfs(file, oid):
        row["lfs"] = {"sha256": lfs["oid"], "size": lfs["size"], "pointerSize": lfs["pointerSize"]}
    return row


def refs(repo: Repo) -> dict[str, Any]:
    """The branches. Whether one was a tag, a seal does not say."""
    rows = [
        {"name": name, "ref": f"refs/heads/{name}", "targetCommit": commit}
        for name, commit in repo.branches.items()
    ]
    return {"branches": rows, "converts": [], "tags": [], "pullRequests": []}


def tree(
    revision: Revision, oid: Oid, below: str, is_recursive: bool, is_expanded: bool
) -> list[dict[str, Any]] | None:
    """What `/tree/V` answers about the folder `below` ("": the whole); None if there is none."""
    prefix = f"{below}/" if below else ""
    found = [file for file in _all(revision) if file.path.startswith(prefix)]
    if not found:
        return None
    folders = {
        folder
        for file in found
        for folder in _parents(file.path)
        if folder.startswith(prefix) and folder != below
    }
    rows = (*(_folder_row(folder, found, oid) for folder in sorted(folders)),
            *(_file_row(file, oid) for file in found))  # fmt: skip
    return [
        row | _expanded(revision) if is_expanded else row
        for row in rows
        if is_recursive or "/" not in row["path"][len(prefix) :]
    ]


def paths(
    revision: Revision, oid: Oid, wanted: Collection[str], is_expanded: bool
) -> list[dict[str, Any]]:
    """What `/paths-info/V` answers: those of the wanted paths that there are."""
    files = _all(revision)
    folders = {folder for file in files for folder in _parents(file.path)}
    rows: Iterator[dict[str, Any]] = (
        _folder_row(path, files, oid) if path in folders else _file_row(revision.files[path], oid)
        for path in dict.fromkeys(wanted)
        if path in folders or path in revision.files
    )
    return [row | _expanded(revision) if is_expanded else row for row in rows]


def _file_row(file: File, oid: Oid) -> dict[str, Any]:
    row = {"type": "file", "oid": _git_id(file, oid), "size": file.size, "path": file.path}
    lfs = _lfs(file, oid)
    return row | {"lfs": lfs} if lfs else row


def _folder_row(path: str, files: Iterable[File], oid: Oid) -> dict[str, Any]:
    below = ((file.path, oid(file)) for file in files if file.path.startswith(f"{path}/"))
    return {"type": "directory", "oid": folder_id(below), "size": 0, "path": path}


def _lfs(file: File, oid: Oid) -> dict[str, Any] | None:
    name = oid(file)
    if len(name) != 64:
        return None
    return {"oid": name, "size": file.size, "pointerSize": len(pointer(name, file.size))}


def _git_id(file: File, oid: Oid) -> str:
    """git's id of what git holds: the content, or the pointer to it."""
    name = oid(file)
    return git_blob_id(pointer(name, file.size)) if len(name) == 64 else name


def _expanded(revision: Revision) -> dict[str, Any]:
    commit = {"id": revision.commit, "title": "Sealed", "date": _time(revision)}
    return {"lastCommit": commit, "securityFileStatus": None}


def _parents(path: str) -> Iterator[str]:
    words = path.split("/")[:-1]
    return ("/".join(words[: length + 1]) for length in range(len(words)))


def _all(revision: Revision) -> list[File]:
    return [revision.files[path] for path in sorted(revision.files)]


def _time(revision: Revision) -> str:
    at = datetime.fromtimestamp(revision.sealed_at, UTC)
    return at.strftime("%Y-%m-%dT%H:%M:%S.") + f"{at.microsecond // 1000:03d}Z"
