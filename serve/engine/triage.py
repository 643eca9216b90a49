"""From the log of a failed start to its root cause: a table, and a rule for what is not in it.

vLLM starts in three processes; when one fails, the others complain too. The cause is in the first
traceback of the innermost one, never in "Engine core initialization failed. See root cause above".
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass

from serve.engine.triage_cause import Cause
from serve.engine.triage_machine import CARDS, MEMORY, PROCESSES, TOOLS
from serve.engine.triage_model import FILES, FIT, FLAGS, UNREAD

# The order counts where two rows match the same words: from what only one thing can cause to what
# is a consequence of many.
CAUSES = (*MEMORY, *CARDS, *TOOLS, *FILES, *FIT, *FLAGS)
CONSEQUENCES = (*UNREAD, *PROCESSES)

_EMPTY = (
    "Engine core initialization failed",
    "WorkerProc initialization failed",
    "Failed core proc",
    "EngineDeadError",
    "Executor failed",
)
_GIVEN_UP = re.compile(
    r"EngineCore failed to start|WorkerProc failed to start|Engine core init\w+ failed"
)
# `(Worker pid=7) ERROR 11-21 19:12:30 [core.py:133] ` before every line that is logged, the process
# alone before every line that is printed; before 0.8 `ERROR 11-18 18:07:28 engine.py:366] `.
_PREFIX = re.compile(r"^(?:\((\w+)[^)]*\) ?|\[rank\d+\]: )?(?:([A-Z]+) [^\]]*\] ?)?")
_LONGEST_LINE = 2000
# Levels of lines that tell of no failure, but quote settings and warn of what may come.
_TALK = ("INFO", "DEBUG", "WARNING")
_INNER = ("Worker", "VllmWorker", "VllmWorkerProcess", "RayWorkerWrapper", "EngineCore")
_TRACEBACK = "Traceback (most recent call last):"
_CHAINED = ("During handling of the above exception", "The above exception was the direct cause")
_EXCEPTION = re.compile(
    r"^(?:\w+\.)*\w*(?:Error|Exception|Interrupt|Exit|OutOfResources|IsEnabled)\b(?:: .*)?$"
)
_PYDANTIC = re.compile(r"^\s*(?:Value|Assertion) error, (.*?)(?: \[type=.*)?$")


@dataclass(frozen=True, slots=True)
class Finding:
    """`cause`: in one sentence. `facts`: kind of cause, then its figures, for whoever can change
    what was planned; empty where nobody can."""

    cause: str
    remedy: str | None = None
    facts: tuple[str, ...] = ()


def find_cause(log_text: str, exit_code: int | None = None) -> Finding:
    """The root cause of the failed start that wrote this log, as far as it can be told.

    `exit_code`: of its main process, negative for a signal: who is killed says nothing.
    1. What the first exception of the innermost process says, if the table knows it.
    2. Else what the log says first, of all that the table knows.
    3. Else what only follows from something, exception before log.
    4. Else the exception as it is, or the log's last words.
    """
    log_text = _cut(log_text)
    root, spoken = _root_exception(log_text), _without_talk(log_text)
    found = (
        _first_row(CAUSES, root, log_text)
        or _earliest(CAUSES, spoken, log_text)
        or _first_row(CONSEQUENCES, root, log_text)
        or _earliest(CONSEQUENCES, spoken, log_text)
        or (None if root else _first_row((*CAUSES, *CONSEQUENCES), _killed(exit_code), log_text))
    )
    return _told(*found) if found is not None else Finding(root or _last_words(log_text))


def _cut(log_text: str) -> str:
    """No line is so long that looking through it takes minutes, whoever wrote it."""
    return "\n".join(line[:_LONGEST_LINE] for line in log_text.splitlines())


def has_given_up(log_text: str) -> bool:
    """Has the engine said that it will not become ready?"""
    return _GIVEN_UP.search(log_text) is not None


def _first_row(
    causes: Iterable[Cause], text: str, log_text: str
) -> tuple[Cause, re.Match[str]] | None:
    for cause in causes:
        match = cause.pattern.search(text)
        if match is not None and _holds(cause, log_text):
            return cause, match
    return None


def _earliest(
    causes: Iterable[Cause], text: str, log_text: str
) -> tuple[Cause, re.Match[str]] | None:
    found = [(cause, cause.pattern.search(text)) for cause in causes]
    there = [(cause, match) for cause, match in found if match and _holds(cause, log_text)]
    return min(there, key=lambda pair: pair[1].start(), default=None)


def _killed(exit_code: int | None) -> str:
    """The end of the main process by a signal, in the words that vLLM has for its workers."""
    is_killed = exit_code is not None and exit_code < 0
    return f"died unexpectedly (exit code: {exit_code})" if is_killed else ""


def _holds(cause: Cause, log_text: str) -> bool:
    return cause.also is None or cause.also.search(log_text) is not None


def _told(cause: Cause, match: re.Match[str]) -> Finding:
    groups = [group or "" for group in match.groups()]
    return Finding(
        _tidy(cause.sentence.format(*groups)),
        cause.remedy.format(*groups) if cause.remedy is not None else None,
        (cause.kind, *groups) if cause.kind is not None else (),
    )


def _tidy(sentence: str) -> str:
    """Of rows whose figure not every wording has."""
    return sentence.replace(" (another  was asked for)", "").replace("(NCCL: )", "(NCCL)")


def _without_talk(log_text: str) -> str:
    lines = log_text.splitlines()
    return "\n".join(
        line for line in lines if not (match := _PREFIX.match(line)) or match[2] not in _TALK
    )


def _root_exception(log_text: str) -> str:
    """The exception of the innermost process that has one; empty where there is none."""
    said: dict[str, list[str]] = {}
    for line in log_text.splitlines():
        match = _PREFIX.match(line)
        process, end = (match[1] or "", match.end()) if match else ("", 0)
        said.setdefault(process.partition("_")[0], []).append(line[end:])
    others = [process for process in said if process not in _INNER]
    for process in (*_INNER, *others):
        exception = _first_chain(said.get(process, []))
        if exception and not any(words in exception for words in _EMPTY):
            return exception
    return ""


def _first_chain(lines: list[str]) -> str:
    """The last exception of the first traceback, with those that it was chained from before it."""
    exception = ""
    is_open, goes_on = False, True
    for number, line in enumerate(lines):
        if line.startswith(_TRACEBACK):
            if not goes_on:
                break
            is_open = True
        elif is_open and _EXCEPTION.match(line):
            exception = _with_detail(line, lines[number + 1 : number + 4])
            is_open, goes_on = False, False
        elif line.startswith(_CHAINED):
            goes_on = True
    return exception


def _with_detail(line: str, below: list[str]) -> str:
    """pydantic puts what matters into the lines below its exception's own."""
    details = (_PYDANTIC.match(text) for text in below)
    return next((detail[1] for detail in details if detail), line)


def _last_words(log_text: str) -> str:
    lines = [_PREFIX.sub("", line).strip() for line in log_text.splitlines()]
    told = [line for line in lines if line and not any(words in line for words in _EMPTY)]
    return told[-1] if told else "it ended without a word"
