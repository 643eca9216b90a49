"""How a long fetch tells what it is doing; the CLI draws it, tests record it."""

from typing import Protocol


class Progress(Protocol):
    """Told in order: `start`, any number of `advance` and `note`, `finish`; then perhaps again.

    `total_bytes` None: not known. `advance` may be negative when a source makes us begin again.
    """

    def start(self, label: str, total_bytes: int | None) -> None: ...
    def advance(self, n_bytes: int) -> None: ...
    def note(self, text: str) -> None: ...
    def finish(self) -> None: ...


class Silent:
    """Progress that nobody watches."""

    def start(self, label: str, total_bytes: int | None) -> None:
        pass

    def advance(self, n_bytes: int) -> None:
        pass

    def note(self, text: str) -> None:
        pass

    def finish(self) -> None:
        pass
