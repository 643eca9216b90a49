"""Xet, the Hub's own transfer: content-defined chunks from many places at once.

`huggingface_hub.file_download.xet_get` would do the same, but with a session whose settings come
from the environment alone: it reports every transfer to the storage service (`/v1/telemetry`) and
tries an unreachable one again for six minutes.
"""

from collections.abc import Callable, Mapping
from datetime import timedelta
from pathlib import Path
from typing import Any

from hf_xet import XetConfig, XetFileInfo, XetSession

from serve.errors import SourceUnreachable

_CONFIG = {
    "telemetry.enabled": False,
    "client.connect_timeout": timedelta(seconds=10),
    "client.retry_max_attempts": 3,
    "client.retry_base_delay": timedelta(seconds=1),
    "client.retry_max_duration": timedelta(seconds=60),
}


def download(
    file: XetFileInfo,
    target: Path,
    refresh_url: str,
    headers: Mapping[str, str],
    position: Callable[[int], None],
) -> None:
    """Write the file anew to `target`; `position` hears how many bytes of it are done.

    `refresh_url` gives, to a GET with `headers`, the storage's address and a short-lived token for
    it. OSError if the disk refuses, SourceUnreachable for the rest.
    """
    session = XetSession(XetConfig().with_config(_CONFIG))
    to_storage = {key: value for key, value in headers.items() if key != "authorization"}

    def progress(report: Any, _: object) -> None:
        position(report.total_bytes_completed)

    try:
        with session.new_file_download_group(
            token_refresh_url=refresh_url,
            token_refresh_headers=dict(headers),
            custom_headers=to_storage,
            progress_callback=progress,
        ) as group:
            group.start_download_file(file, str(target.absolute()))
    except KeyboardInterrupt:
        session.sigint_abort()
        raise
    except (OSError, RuntimeError) as error:
        if isinstance(error, OSError) and error.errno is not None:
            raise
        raise SourceUnreachable("Xet", str(error)) from error
