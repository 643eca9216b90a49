"""Weights from the Hugging Face Hub, or a mirror of it, in the Hub client's own cache layout."""

import re
from collections.abc import Mapping
from pathlib import Path

from serve.disk import disk_errors
from serve.errors import RepoNotFound, SourceUnreachable, UnsafeWeights
from serve.sources import HubSource
from serve.store import approval, content, repository
from serve.store.access import Access
from serve.store.hub_cache import HubCache, commit_of
from serve.store.hub_client import Hub, HubOrigin
from serve.store.hub_file import HubFile
from serve.store.manifest import Fetched
from serve.store.progress import Progress
from serve.store.transfer import Transfer

_REPO = re.compile(r"[A-Za-z0-9][\w.-]{0,95}(/[A-Za-z0-9][\w.-]{0,95})?", re.ASCII)
_SHARD = re.compile(r".*-\d{5}-of-(?P<shards>\d{5})\.safetensors")
_VOCABULARIES = ("tokenizer.json", "tokenizer.model", "vocab.json", "vocab.txt")


def fetch(
    source: HubSource, access: Access, progress: Progress,
    expected: Mapping[str, str] | None = None, remote_code: str | None = None,
) -> Fetched:  # fmt: skip
    """Bring one revision's model files into the Hub cache and verify every one.

    What is there already, from whoever, is kept if its hash is right; all of it, if the Hub cannot
    be reached. `expected`: the sha256 that each file must have (a lock). `remote_code`: what the
    catalog approves of the repository's Python (`ModelSpec`). Raises SourceUnreachable,
    AccessDenied, RepoNotFound, UnsafeWeights, HashMismatch, LockMismatch, DiskFull, NotWritable.
    """
    if not _REPO.fullmatch(source.repo):
        raise RepoNotFound(source.repo, source.revision)
    hub = Hub(source, access)
    commit, files = _listing(hub, source, access, progress)
    code = approval.is_approved(remote_code, commit)
    cache = HubCache(access.home, source.repo, commit)
    origin = HubOrigin(hub, commit)
    transfer = Transfer(origin, cache, progress, access.parallel, expected)
    with disk_errors(cache.storage):
        try:
            records = repository.obtain(transfer, cache.snapshot, files, remote_code, code)
        finally:
            progress.finish()
        repository.check_all_there(source.repo, expected, records)
        cache.remember(source.revision, commit)
    return Fetched(cache.snapshot, commit, tuple(records))


def _listing(
    hub: Hub, source: HubSource, access: Access, progress: Progress
) -> tuple[str, Mapping[str, HubFile]]:
    """The commit and its files: as the Hub lists them, else as a whole snapshot here has them."""
    try:
        return hub.listing()
    except SourceUnreachable as error:
        commit = commit_of(access.home, source.repo, source.revision)
        cache = HubCache(access.home, source.repo, commit or "")
        files = {file.path: file for file in cache.listing()} if commit else {}
        if not commit or not _is_whole(cache.snapshot, files):
            raise
        progress.note(
            f"{error.source} cannot be reached ({error.reason}): verifying what the Hugging Face "
            f"cache has as {source.revision} of {source.repo}: {commit[:12]}"
        )
        return commit, files


def _is_whole(snapshot: Path, files: Mapping[str, HubFile]) -> bool:
    """Whether the snapshot has all that a model needs, as far as its own files tell."""
    try:
        index = content.read_index(snapshot)
        weights = content.weight_files(files, index)
    except UnsafeWeights:
        return False
    shards = [match for name in weights if (match := _SHARD.fullmatch(name))]
    all_there = index is not None or all(int(one["shards"]) == len(weights) for one in shards)
    has_vocabulary = any(path in _VOCABULARIES or path.endswith(".tiktoken") for path in files)
    return all_there and has_vocabulary and "config.json" in files
