"""Weights from the Hugging Face Hub, or a mirror of it, in the Hub client's own cache layout.

The only importer of `huggingface_hub`. The client gives us its protocol, retries, proxies and Xet.
The last step is ours: the client (2.4, `_download_to_tmp_and_move`) throws a half-downloaded file
away when it is stopped, names blobs after whatever ETag it is given, and never hashes the bytes.
"""

import logging
import re
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any, BinaryIO
from urllib.parse import quote, urlsplit

import httpx2
from hf_xet import XetFileInfo
from huggingface_hub import constants, scan_cache_dir
from huggingface_hub.errors import FileMetadataError, HfHubHTTPError, OfflineModeIsEnabled
from huggingface_hub.file_download import get_hf_file_metadata, hf_hub_url, http_get
from huggingface_hub.utils import (  # type: ignore[attr-defined]
    build_hf_headers,
    hf_raise_for_status,
    http_backoff,
)
from pydantic import BaseModel, Field, ValidationError

from serve import __version__
from serve.errors import AccessDenied, HashMismatch, RepoNotFound, SourceUnreachable, StoreError
from serve.sources import HubSource
from serve.store import content, xet
from serve.store.access import Access
from serve.store.disk import disk_errors, locked, require_room
from serve.store.hub_cache import HubCache, HubFile
from serve.store.manifest import Fetched, FileRecord, record_of
from serve.store.progress import Progress

# The client reads this at every request. Unless it is set, the client fetches a list of known
# callers from its default endpoint and puts what it finds out about us into its User-Agent.
constants.HF_HUB_DISABLE_TELEMETRY = True
# The client prints its log to stderr by itself; ours has one form and one printer.
logging.getLogger("huggingface_hub").handlers.clear()

_TIMEOUT_S = 10
_TRIES = 3
_REPO = re.compile(r"[A-Za-z0-9][\w.-]{0,95}(/[A-Za-z0-9][\w.-]{0,95})?", re.ASCII)


class _Lfs(BaseModel):
    sha256: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]


class _Sibling(BaseModel):
    rfilename: str
    size: Annotated[int, Field(ge=0)] | None = None
    blobId: Annotated[str, Field(pattern=r"^[0-9a-f]{40}$")] | None = None
    lfs: _Lfs | None = None


class _Listing(BaseModel):
    sha: Annotated[str, Field(pattern=r"^[0-9a-f]{40}$")]
    siblings: list[_Sibling]


def fetch(source: HubSource, access: Access, progress: Progress) -> Fetched:
    """Bring one revision's model files into the Hub cache and verify every one.

    What is there already is kept if its hash is right. Small files come first, so that what we
    refuse is refused before gigabytes were moved. Raises SourceUnreachable, AccessDenied,
    RepoNotFound, UnsafeWeights, HashMismatch, DiskFull, NotWritable.
    """
    if not _REPO.fullmatch(source.repo):
        raise RepoNotFound(source.repo, source.revision)
    hub = _Hub(source, access)
    listing = hub.listing()
    download = _Download(hub, HubCache(access.home, source.repo, listing.sha), progress)
    cache, files = download.cache, {sibling.rfilename: sibling for sibling in listing.siblings}
    with disk_errors(cache.storage):
        records = download.obtain([files[path] for path in content.small_files(files)])
        content.check_settings(cache.snapshot)
        weights = content.weight_files(files, content.read_index(cache.snapshot))
        records += download.obtain([files[path] for path in weights])
        content.check_weights(cache.snapshot, weights)
        cache.remember(source.revision, listing.sha)
    return Fetched(cache.snapshot, listing.sha, tuple(records))


def remove(snapshot: Path) -> int:
    """Remove one revision from the Hub cache and the blobs that no other needs; the bytes freed."""
    if not snapshot.is_dir():
        return 0
    repo, cache = snapshot.parents[1], snapshot.parents[2]
    with disk_errors(cache):
        found = scan_cache_dir(cache)
        # Copies of a repository share its commits, so the commit alone would not name ours.
        ours = replace(found, repos=frozenset(r for r in found.repos if r.repo_path == repo))
        strategy = ours.delete_revisions(snapshot.name)
        strategy.execute()
    return strategy.expected_freed_size


class _Hub:
    """The protocol: what one revision holds, and the bytes of its files."""

    def __init__(self, source: HubSource, access: Access) -> None:
        self.repo, self._revision = source.repo, source.revision
        self.endpoint = access.endpoint.rstrip("/")
        self._has_token = bool(access.token)
        self._headers = build_hf_headers(
            token=access.token or False, library_name="inhouse", library_version=__version__
        )

    def listing(self) -> _Listing:
        """Which commit the revision is now, and its files with sizes and hashes."""
        url = f"{self.endpoint}/api/models/{self.repo}/revision/{quote(self._revision, safe='')}"
        with self._errors():
            response = http_backoff(
                "GET", url, params={"blobs": True}, headers=self._headers, timeout=_TIMEOUT_S,
                max_retries=_TRIES - 1, base_wait_time=0.5,
            )  # fmt: skip
            hf_raise_for_status(response)
        try:
            return _Listing.model_validate_json(response.content)
        except ValidationError as error:
            reason = "its answer is not a Hub's: " + error.errors()[0]["msg"]
            raise SourceUnreachable(self.endpoint, reason) from error

    def transfer(
        self, file: HubFile, commit: str, partial: Path, target: BinaryIO, meter: "_Meter"
    ) -> None:
        """Add what `partial`, open as `target`, lacks. Whether the bytes are right, others see."""
        url = hf_hub_url(self.repo, file.path, revision=commit, endpoint=self.endpoint)
        with self._errors():
            found = get_hf_file_metadata(
                url, timeout=_TIMEOUT_S, headers=self._headers, token=False,
                endpoint=self.endpoint, retry_on_errors=True,
            )  # fmt: skip
            if found.etag != file.promised:
                raise HashMismatch(file.path, file.promised, str(found.etag))
            if found.xet_file_data is not None and not constants.HF_HUB_DISABLE_XET:
                xet.download(
                    XetFileInfo(found.xet_file_data.file_hash, file.size), partial,
                    found.xet_file_data.refresh_route,
                    self._headers_for(found.xet_file_data.refresh_route), meter.move_to,
                )  # fmt: skip
            else:
                self._get(found.location, file, target, meter)

    def _get(self, url: str, file: HubFile, target: BinaryIO, meter: "_Meter") -> None:
        """The client's download, which tries again by itself; and again where it does not."""
        failures = 0
        while True:
            before = target.tell()
            try:
                return http_get(
                    url, target, resume_size=before, headers=self._headers_for(url),
                    expected_size=file.size, displayed_filename=file.path,
                    tqdm_class=meter,  # type: ignore[arg-type]
                )  # fmt: skip
            except (httpx2.ReadError, HfHubHTTPError) as error:
                failures = 1 if target.tell() > before else failures + 1
                refused = isinstance(error, HfHubHTTPError) and error.response.status_code < 500
                if refused or failures >= _TRIES:
                    raise
                time.sleep(0.5 * failures)

    def _headers_for(self, url: str) -> dict[str, str]:
        """Our headers; the token goes to the endpoint's own origin only."""
        at_home = urlsplit(url)[:2] == urlsplit(self.endpoint)[:2]
        return {k: v for k, v in self._headers.items() if at_home or k != "authorization"}

    @contextmanager
    def _errors(self) -> Iterator[None]:
        """What the client raises, in our words. Errors of the disk pass."""
        try:
            yield
        except HfHubHTTPError as error:
            raise self._refusal(error.response.status_code, error.response.headers) from error
        except (httpx2.HTTPError, OfflineModeIsEnabled, FileMetadataError) as error:
            reason = str(error).strip() or type(error).__name__
            raise SourceUnreachable(self.endpoint, reason) from error
        except (httpx2.InvalidURL, ValueError) as error:
            raise SourceUnreachable(self.endpoint, str(error).strip()) from error

    def _refusal(self, status: int, headers: Mapping[str, str]) -> StoreError:
        """The Hub answers strangers 401 for what does not exist, and says so in a header."""
        code = headers.get("X-Error-Code", "")
        if status == 404 or code == "RepoNotFound":
            return RepoNotFound(self.repo, self._revision)
        if status in (401, 403):
            return AccessDenied(self.repo, self._has_token)
        return SourceUnreachable(self.endpoint, f"it answered {status} {code}".strip())


class _Download:
    """Brings files from the Hub into the cache, one after another (Xet is parallel in itself)."""

    def __init__(self, hub: _Hub, cache: HubCache, progress: Progress) -> None:
        self._hub, self.cache, self._progress = hub, cache, progress

    def obtain(self, siblings: Sequence[_Sibling]) -> list[FileRecord]:
        """Have these files in the snapshot, verified; what is missing is downloaded."""
        files = [self._file(sibling) for sibling in siblings]
        require_room(self.cache.storage, sum(map(self.cache.missing_bytes, files)))
        self._progress.start(self._hub.repo, sum(file.size for file in files))
        try:
            return [self._obtain_one(file) for file in files]
        finally:
            self._progress.finish()

    def _file(self, listed: _Sibling) -> HubFile:
        promised = listed.lfs.sha256 if listed.lfs else listed.blobId
        if listed.size is None or promised is None:
            reason = f"it lists no size or hash of {listed.rfilename}"
            raise SourceUnreachable(self._hub.endpoint, reason)
        return HubFile(listed.rfilename, listed.size, promised)

    def _obtain_one(self, file: HubFile) -> FileRecord:
        def waiting() -> None:
            self._progress.note(f"somebody else is downloading {file.path}: waiting")

        with locked(self.cache.lock(file), waiting):
            sha256 = self.cache.find(file, self._progress.advance) or self._download(file)
        return record_of(self.cache.snapshot, file.path, sha256, file.promised)

    def _download(self, file: HubFile) -> str:
        meter = _Meter(self._progress)
        is_continued = self._fill(file, meter)
        try:
            return self.cache.accept(file)
        except HashMismatch:
            if not is_continued:
                raise
        self._progress.note(f"the first part of {file.path} was damaged: beginning again")
        self._fill(file, meter)
        return self.cache.accept(file)

    def _fill(self, file: HubFile, meter: "_Meter") -> bool:
        """Bring the partial file to its full length; whether some of it was there before."""
        partial = self.cache.partial(file)
        partial.parent.mkdir(parents=True, exist_ok=True)
        if partial.exists() and partial.stat().st_size > file.size:
            partial.unlink()
        try:
            with partial.open("ab") as target:
                is_continued = target.tell() > 0
                self._hub.transfer(file, self.cache.snapshot.name, partial, target, meter)
        except OSError as error:
            # Without errno: the client's "Consistency check failed", which `accept` sees better.
            if error.errno is not None:
                partial.unlink(missing_ok=True)  # leave the disk no fuller than it was
                with disk_errors(partial, file.size):
                    raise
        return is_continued


class _Meter:
    """What the client takes for its progress bar's class, and for the bar: passes bytes on."""

    def __init__(self, progress: Progress) -> None:
        self._progress = progress
        self._position = 0

    def __call__(self, *, initial: int = 0, **_: Any) -> "_Meter":
        self.move_to(initial)
        return self

    def __enter__(self) -> "_Meter":
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def move_to(self, position: int) -> None:
        self.update(position - self._position)

    def update(self, n: int) -> None:
        self._position += n
        self._progress.advance(n)

    def ignore(self, *_: Any, **__: Any) -> None:
        """What else a bar is told: bytes on the wire, texts."""

    update_transfer = set_postfix_str = set_transfer_postfix_str = refresh = close = ignore
