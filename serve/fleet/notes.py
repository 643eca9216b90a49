"""What the store tells while weights are made ready, in the log."""

import logging

from serve.log import fields

logger = logging.getLogger(__name__)


class Notes:
    """Progress of one model for those who read logs: what begins and what is worth a word, not
    every byte."""

    def __init__(self, model: str) -> None:
        self._model = model

    def start(self, label: str, total_bytes: int | None, total_files: int = 0) -> None:
        size = total_bytes if total_bytes is not None else "unknown"
        logger.info("%s %s", label, fields(model=self._model, bytes=size, files=total_files))

    def advance(self, n_bytes: int) -> None:
        pass

    def file_done(self) -> None:
        pass

    def note(self, text: str) -> None:
        logger.warning("%s %s", text, fields(model=self._model))

    def finish(self) -> None:
        pass
