"""Structured lines to stderr. Only `cli/` and the gateway's entry call `configure`."""

import json
import logging
import re
import sys
import time

_PLAIN_WORD = re.compile(r"[!#-<>-~]+")  # printable ASCII without space, `"` and `=`


def configure(level: str, process: str) -> None:
    """Send every log record of this process to stderr as `time level process: message`."""
    formatter = logging.Formatter(
        f"%(asctime)s.%(msecs)03dZ %(levelname)-7s {process}: %(message)s", "%Y-%m-%dT%H:%M:%S"
    )
    formatter.converter = time.gmtime
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(formatter)
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level.upper())
    for chatty in ("httpx", "httpcore", "huggingface_hub", "urllib3", "asyncio", "alembic"):
        logging.getLogger(chatty).setLevel(logging.WARNING)


def fields(**facts: object) -> str:
    """`key=value` pairs in the order given, for the end of a log message.

    A value that is not one plain word is quoted, so that nobody can forge a line or a field.
    """
    return " ".join(f"{key}={_word(str(value))}" for key, value in facts.items())


def _word(text: str) -> str:
    return text if _PLAIN_WORD.fullmatch(text) else json.dumps(text)
