"""The Hub's protocol, through its own client. The only importer of `huggingface_hub`.

The client gives us its addresses, headers, proxies and errors. The bytes are ours: the client
(2.4, `_download_to_tmp_and_move`) throws a half-downloaded file away when it is stopped, writes in
pieces of 10 MiB, names blobs after whatever ETag it is given, and never hashes them.
"""

import logging
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import cached_property
from typing import Annotated
from urllib.parse import quote, urlsplit

import httpx2
from hf_xet import XetFileInfo
from huggingface_hub import constants
from huggingface_hub.errors import FileMetadataError, HfHubHTTPError, OfflineModeIsEnabled
from huggingface_hub.file_download import HfFileMetadata, get_hf_file_metadata, hf_hub_url
from huggingface_hub.utils import (  # type: ignore[attr-defined]
    build_hf_headers,
    get_session,
    hf_raise_for_status,
    http_backoff,
)
from pydantic import BaseModel, Field, ValidationError

from serve import __version__
from serve.errors import AccessDenied, HashMismatch, RepoNotFound, SourceUnreachable, StoreError
from serve.sources import HubSource
from serve.store import xet
from serve.store.access import Access
from serve.store.hub_file import HubFile
from serve.store.parallel import Stop
from serve.store.transfer import TryAgain

# The client reads this at every request. Unless it is set, the client fetches a list of known
# callers from its default endpoint and puts what it finds out about us into its User-Agent.
constants.HF_HUB_DISABLE_TELEMETRY = True
# The client prints its log to stderr by itself; ours has one form and one printer.
logging.getLogger("huggingface_hub").handlers.clear()

_TIMEOUT_S = 10
_RETRIES = 2
_MOST_REDIRECTS = 5
_COMMIT = re.compile(r"[0-9a-f]{40}")
_RANGE = re.compile(r"bytes (\d+)-")
_MAY_PASS = (408, 429)  # and all from 500 on


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


class Hub:
    """One repository's revision on a Hub."""

    def __init__(self, source: HubSource, access: Access) -> None:
        self.repo, self._revision = source.repo, source.revision
        self.endpoint = access.endpoint.rstrip("/")
        self._has_token = bool(access.token)
        self._headers = build_hf_headers(
            token=access.token or False, library_name="inhouse", library_version=__version__
        )

    def listing(self) -> tuple[str, dict[str, HubFile]]:
        """Which commit the revision is now, and its files by path. HashMismatch if a commit was
        asked for, and the answer is another one."""
        url = f"{self.endpoint}/api/models/{self.repo}/revision/{quote(self._revision, safe='')}"
        with self.errors():
            response = http_backoff(
                "GET", url, params={"blobs": True}, headers=self._headers, timeout=_TIMEOUT_S,
                max_retries=_RETRIES, base_wait_time=0.5,
            )  # fmt: skip
            hf_raise_for_status(response)
        try:
            listed = _Listing.model_validate_json(response.content)
        except ValidationError as error:
            reason = "its answer is not a Hub's: " + error.errors()[0]["msg"]
            raise SourceUnreachable(self.endpoint, reason) from error
        if _COMMIT.fullmatch(self._revision) and listed.sha != self._revision:
            raise HashMismatch(f"the commit of {self.repo}", self._revision, listed.sha)
        return listed.sha, {one.rfilename: self._file(one) for one in listed.siblings}

    def piece(self, commit: str, path: str, begin: int, n_bytes: int) -> bytes:
        """So many bytes of one file, or what it has of them. One request, and a redirect's."""
        url = hf_hub_url(self.repo, path, revision=commit, endpoint=self.endpoint)
        wanted = {"Range": f"bytes={begin}-{begin + n_bytes - 1}", "Accept-Encoding": "identity"}
        with self.errors():
            for _ in range(_MOST_REDIRECTS):
                headers = self.headers_for(url) | wanted
                with get_session().stream("GET", url, headers=headers, timeout=_TIMEOUT_S) as reply:
                    if not reply.has_redirect_location:
                        return self._piece_of(reply, begin, n_bytes)
                    url = str(reply.next_request.url) if reply.next_request else url
        raise SourceUnreachable(self.endpoint, "it sends us in a circle")

    def _piece_of(self, reply: httpx2.Response, begin: int, n_bytes: int) -> bytes:
        if reply.is_error:
            reply.read()
        hf_raise_for_status(reply)
        if _begin_of(reply) != begin:
            raise SourceUnreachable(self.endpoint, "it cannot send a part of a file")
        pieces = bytearray()
        for piece in reply.iter_bytes():
            pieces += piece
            if len(pieces) >= n_bytes:  # a server that ignores the range sends all of it
                break
        return bytes(pieces[:n_bytes])

    def headers_for(self, url: str) -> dict[str, str]:
        """Our headers; the token goes to the endpoint's own origin only."""
        at_home = urlsplit(url)[:2] == urlsplit(self.endpoint)[:2]
        return {k: v for k, v in self._headers.items() if at_home or k != "authorization"}

    @contextmanager
    def errors(self) -> Iterator[None]:
        """What the client raises, in our words."""
        try:
            yield
        except HfHubHTTPError as error:
            raise self._refusal(error.response.status_code, error.response.headers) from error
        except (httpx2.HTTPError, OfflineModeIsEnabled, FileMetadataError) as error:
            reason = str(error).strip() or type(error).__name__
            raise SourceUnreachable(self.endpoint, reason) from error
        except (httpx2.InvalidURL, ValueError) as error:
            raise SourceUnreachable(self.endpoint, str(error).strip()) from error

    def _file(self, listed: _Sibling) -> HubFile:
        promised = listed.lfs.sha256 if listed.lfs else listed.blobId
        if listed.size is None or promised is None:
            reason = f"it lists no size or hash of {listed.rfilename}"
            raise SourceUnreachable(self.endpoint, reason)
        return HubFile(listed.rfilename, listed.size, promised)

    def _refusal(self, status: int, headers: Mapping[str, str]) -> StoreError:
        """The Hub answers strangers 401 for what does not exist, and says so in a header."""
        code = headers.get("X-Error-Code", "")
        if status == 404 or code == "RepoNotFound":
            return RepoNotFound(self.repo, self._revision)
        if status in (401, 403):
            return AccessDenied(self.repo, self._has_token)
        return SourceUnreachable(self.endpoint, f"it answered {status} {code}".strip())


class HubOrigin:
    """The files of one commit, by Xet where it is offered, else by HTTP."""

    def __init__(self, hub: Hub, commit: str) -> None:
        self._hub, self._commit = hub, commit

    @contextmanager
    def reading(
        self, file: HubFile, begin: int, stop: Stop
    ) -> Iterator[tuple[int, Iterator[bytes]]]:
        """The file from byte `begin` on, and where that really begins.

        Addresses of big files are good for a while only, so every reading asks for a new one.
        """
        try:
            with self._hub.errors():
                found = self._metadata(file)
            if found.etag not in (None, file.promised):
                raise HashMismatch(file.path, file.promised, str(found.etag))
            if found.xet_file_data is not None and not constants.HF_HUB_DISABLE_XET:
                route = found.xet_file_data.refresh_route
                info = XetFileInfo(found.xet_file_data.file_hash, file.size)
                headers = self._hub.headers_for(route)
                with self._xet.reading(info, begin, route, headers, stop) as pieces:
                    yield begin, pieces
            else:
                with self._hub.errors(), self._get(found.location, begin) as response:
                    yield _begin_of(response), response.iter_bytes()
        except SourceUnreachable as error:
            raise _may_pass(error) from error

    @cached_property
    def _xet(self) -> xet.Storage:
        return xet.Storage()

    def _metadata(self, file: HubFile) -> HfFileMetadata:
        hub = self._hub
        url = hf_hub_url(hub.repo, file.path, revision=self._commit, endpoint=hub.endpoint)
        return get_hf_file_metadata(
            url, timeout=_TIMEOUT_S, headers=hub.headers_for(url), token=False,
            endpoint=hub.endpoint,
        )  # fmt: skip

    @contextmanager
    def _get(self, url: str, begin: int) -> Iterator[httpx2.Response]:
        headers = self._hub.headers_for(url) | {"Accept-Encoding": "identity"}
        if begin:
            headers["Range"] = f"bytes={begin}-"
        patience_s = constants.HF_HUB_DOWNLOAD_TIMEOUT
        with get_session().stream("GET", url, headers=headers, timeout=patience_s) as response:
            if response.is_error:
                response.read()
            hf_raise_for_status(response)
            yield response


def _begin_of(response: httpx2.Response) -> int:
    """Where in the file the body begins: servers may ignore the wish for a range."""
    told = _RANGE.match(response.headers.get("Content-Range", ""))
    return int(told[1]) if response.status_code == 206 and told else 0


def _may_pass(error: SourceUnreachable) -> StoreError | TryAgain:
    """The error itself if trying again is no use, else the wish to do so."""
    cause = error.__cause__
    if not isinstance(cause, HfHubHTTPError):
        return TryAgain(error)
    status, after = cause.response.status_code, cause.response.headers.get("Retry-After", "")
    if status < 500 and status not in _MAY_PASS:
        return error
    return TryAgain(error, float(after) if after.isdecimal() else 0.0)
