"""How a long fetch tells what it is doing; the CLI draws it, tests record it."""

from typing import Protocol


class Progress(Protocol):
    """Told in order: `start`, any number of the others, `finish`; then perhaps again.

    Several threads may call `advance`, `file_done` and `note` at the same time. `total_bytes` None:
    not known; `total_files` 0: files are not counted. `advance` may be negative when a source
    makes us begin again.
    """

    def start(self, label: str, total_bytes: int | None, total_files: int = 0) -> None: ...
    def advance(self, n_bytes: int) -> None: ...
    def file_done(self) -> None: ...
    def note(self, text: str) -> None: ...
    def finish(self) -> None: ...


class Silent:
    """Progress that nobody watches."""

    def start(self, label: str, total_bytes: int | None, total_files: int = 0) -> None:
        pass

    def advance(self, n_bytes: int) -> None:
        pass

    def file_done(self) -> None:
        pass

    def note(self, text: str) -> None:
        pass

    def finish(self) -> None:
        pass
