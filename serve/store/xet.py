"""Xet, the Hub's own transfer: content-defined chunks from many places at once.

`huggingface_hub.file_download.xet_get` would do the same, but with a session whose settings come
from the environment alone: it reports every transfer to the storage service (`/v1/telemetry`),
tries an unreachable one again for six minutes, buffers gigabytes, and begins every file anew.
"""

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from datetime import timedelta

from hf_xet import XetConfig, XetFileInfo, XetSession

from serve.errors import SourceUnreachable
from serve.store.parallel import Stop

_MIB = 2**20
_CONFIG = {
    "telemetry.enabled": False,
    "client.connect_timeout": timedelta(seconds=10),
    "client.retry_max_attempts": 3,
    "client.retry_base_delay": timedelta(seconds=1),
    "client.retry_max_duration": timedelta(seconds=60),
    # What one file may hold in memory; with four at once 167 MiB were measured in all.
    "reconstruction.min_reconstruction_fetch_size": 8 * _MIB,
    "reconstruction.max_reconstruction_fetch_size": 8 * _MIB,
    "reconstruction.min_prefetch_buffer": 16 * _MIB,
    "reconstruction.download_buffer_size": 16 * _MIB,
    "reconstruction.download_buffer_perfile_size": 16 * _MIB,
    "reconstruction.download_buffer_limit": 16 * _MIB,
}


class Storage:
    """The storage service of one repository. Several threads may read from it at once."""

    def __init__(self) -> None:
        self._session = XetSession(XetConfig().with_config(_CONFIG))

    @contextmanager
    def reading(
        self, file: XetFileInfo, begin: int, refresh_url: str, headers: Mapping[str, str],
        stop: Stop,
    ) -> Iterator[Iterator[bytes]]:  # fmt: skip
        """The file's bytes from `begin` on.

        `refresh_url` gives, to a GET with `headers`, the storage's address and a short-lived token
        for it. Raises SourceUnreachable.
        """
        to_storage = {key: value for key, value in headers.items() if key != "authorization"}
        with _errors():
            group = self._session.new_download_stream_group(
                token_refresh_url=refresh_url,
                token_refresh_headers=dict(headers),
                custom_headers=to_storage,
            )
            stream = group.download_stream(file, start=begin)
        try:
            with stop.calling(group.abort):
                yield _pieces(stream, stop)
        finally:
            group.abort()


def _pieces(stream: Iterable[bytes], stop: Stop) -> Iterator[bytes]:
    """Nobody asks for the rest of a file that has none: hf_xet sometimes ends a stream that it
    could not even begin, instead of saying so."""
    is_empty = True
    with _errors():
        for piece in stream:
            is_empty = False
            yield piece
    stop.check()
    if is_empty:
        raise SourceUnreachable("Xet", "the storage gave nothing")


@contextmanager
def _errors() -> Iterator[None]:
    try:
        yield
    except (OSError, RuntimeError) as error:
        raise SourceUnreachable("Xet", str(error)) from error
