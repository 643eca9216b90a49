"""Weights from ModelScope, through its own client. The only importer of `modelscope_hub`.

The client knows the addresses, the listing and the errors. Its downloads are not used: they draw
bars of their own, keep a second copy in a cache of their own, and begin with questions to cloud
services about where this machine stands.
"""

import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import requests
from modelscope_hub import errors as theirs
from modelscope_hub._legacy_api import LegacyClient
from modelscope_hub.version import __version__ as client_version
from pydantic import BaseModel, Field, TypeAdapter, ValidationError

from serve import __version__
from serve.disk import disk_errors
from serve.errors import AccessDenied, RepoNotFound, SourceUnreachable, StoreError
from serve.sources import ModelScopeSource
from serve.store import approval, repository
from serve.store.access import Access
from serve.store.hub_file import HubFile
from serve.store.manifest import Fetched, digest_of
from serve.store.parallel import Stop
from serve.store.parcel import Parcel
from serve.store.progress import Progress
from serve.store.transfer import Transfer, TryAgain

# The client prints its log to stderr by itself; ours has one form and one printer.
logging.getLogger("modelscope_hub").handlers[:] = [logging.NullHandler()]

# The client puts a name of this installation, kept in the user's home, and facts about the machine
# after its own name, unless it is given something that begins like this.
_USER_AGENT = f"modelscope_hub/{client_version}; inhouse/{__version__}"
_TIMEOUT_S = 30
_RETRIES = 2
_PIECE_BYTES = 2**16
_MAY_PASS = (theirs.RateLimitError, theirs.ServerError, theirs.NetworkError)
# What the client raises over an answer that has another form than it believes.
_STUMBLES = (ValueError, TypeError, AttributeError)


class _Entry(BaseModel):
    path: Annotated[str, Field(alias="Path")]
    kind: Annotated[str, Field(alias="Type")]
    size: Annotated[int | None, Field(alias="Size", ge=0)] = None
    sha256: Annotated[str | None, Field(alias="Sha256", pattern=r"^([0-9a-f]{64})?$")] = None


_LISTING = TypeAdapter(list[_Entry])


def fetch(
    source: ModelScopeSource, place: Path, access: Access, progress: Progress,
    expected: Mapping[str, str] | None = None, remote_code: str | None = None,
) -> Fetched:  # fmt: skip
    """Have the model's files, verified, in `<place>--<digest>`. The caller alone uses `place`.

    What was fetched before a kill is kept beside it. ModelScope tells no commit, so the revision
    is the digest of the files. `expected`, `remote_code`: as for the Hub. Raises SourceUnreachable,
    AccessDenied, RepoNotFound, UnsafeWeights, HashMismatch, LockMismatch, DiskFull, NotWritable.
    """
    code = approval.is_approved(remote_code, source.revision)
    client = _Client(source, access)
    files = client.listing()
    parcel = Parcel(place, source.repo)
    transfer = Transfer(client, parcel, progress, access.parallel, expected)
    with disk_errors(place):
        parcel.prune(files)  # of an attempt at what the branch was before
        try:
            records = repository.obtain(transfer, parcel.snapshot, files, remote_code, code)
        finally:
            progress.finish()
        repository.check_all_there(source.repo, expected, records)
        digest = digest_of(records)
        parcel.prune(record.path for record in records)
        final = parcel.deliver(digest)
    return Fetched(final, digest, tuple(records))


class _Client:
    """One repository's revision on ModelScope."""

    def __init__(self, source: ModelScopeSource, access: Access) -> None:
        self._source, self._endpoint = source, access.modelscope.rstrip("/")
        self._client = LegacyClient(
            None, self._endpoint, timeout=_TIMEOUT_S, max_retries=_RETRIES, user_agent=_USER_AGENT
        )

    def listing(self) -> dict[str, HubFile]:
        """The revision's files by path."""
        source = self._source
        with self._errors():
            listed = self._client.list_repo_files(source.repo, "model", source.revision)
        try:
            entries = _LISTING.validate_python(listed)
        except ValidationError as error:
            raise self._unreachable(
                f"its answer is not ModelScope's: {error.errors()[0]['msg']}"
            ) from error
        return {one.path: self._file(one) for one in entries if one.kind != "tree"}

    @contextmanager
    def reading(
        self, file: HubFile, begin: int, stop: Stop
    ) -> Iterator[tuple[int, Iterator[bytes]]]:
        """The file from byte `begin` on, and where that really begins: there or at 0."""
        source = self._source
        headers = {"Accept-Encoding": "identity"}
        if begin:
            headers["Range"] = f"bytes={begin}-"
        try:
            with (
                self._errors(),
                self._client.download_stream(
                    source.repo, "model", file.path, source.revision, headers
                ) as response,
            ):
                begins = begin if response.status_code == 206 else 0
                yield begins, response.iter_content(_PIECE_BYTES)
        except SourceUnreachable as error:
            if isinstance(error.__cause__, (*_MAY_PASS, requests.RequestException)):
                raise TryAgain(error) from error
            raise

    def _file(self, entry: _Entry) -> HubFile:
        if entry.size is None or not entry.sha256:
            raise self._unreachable(f"it lists no size or hash of {entry.path}")
        return HubFile(entry.path, entry.size, entry.sha256)

    @contextmanager
    def _errors(self) -> Iterator[None]:
        """What the client raises, in our words."""
        try:
            yield
        except (theirs.HubError, requests.RequestException, *_STUMBLES) as error:
            raise self._told(error) from error

    def _told(self, error: Exception) -> StoreError:
        if isinstance(error, theirs.NotExistError):
            return RepoNotFound(self._source.repo, self._source.revision)
        if isinstance(error, theirs.AuthenticationError | theirs.PermissionDeniedError):
            return AccessDenied(self._source.repo, has_token=False)
        return self._unreachable(str(error).strip() or type(error).__name__)

    def _unreachable(self, reason: str) -> SourceUnreachable:
        return SourceUnreachable(self._endpoint, reason)
