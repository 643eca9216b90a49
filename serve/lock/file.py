"""The lock's form on disk: JSON that reads well in a diff, one file of a model a line."""

import json
from pathlib import Path

from serve.disk import disk_errors, write_atomically
from serve.errors import BadFile, LockMismatch
from serve.lock.lock import Lock
from serve.lock.model import FORMAT, LockedModel


def read_lock(path: Path) -> Lock:
    """The lock in a file. LockMismatch if there is none; BadFile, with place and problem, if it
    is none, of another format, or does not agree with itself."""
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError as error:
        raise LockMismatch("", "lock file", "", str(path)) from error
    except UnicodeDecodeError as error:
        raise BadFile(str(path), f"is not UTF-8: byte {error.start}") from error
    except OSError as error:
        raise BadFile(str(path), error.strerror or str(error)) from error
    # Pydantic, which it needs, takes longer to import than all that most verbs do without a lock.
    from serve.lock import reading

    return Lock(reading.models_in(path, text))


def write_lock(path: Path, lock: Lock) -> None:
    """Write the lock: the same lock gives the same bytes, and the file is whole at any moment. A
    link stays one. DiskFull, NotWritable."""
    path = path.resolve()
    with disk_errors(path.parent):
        write_atomically(path, text_of(lock).encode())


def text_of(lock: Lock) -> str:
    """The file's content: sorted, indented, each file of a model on a line of its own."""
    models = [
        f"    {_quoted(model.name)}: {_model_text(model)}"
        for model in sorted(lock.models, key=lambda model: model.name)
    ]
    inner = "{\n" + ",\n".join(models) + "\n  }" if models else "{}"
    return f'{{\n  "format": {FORMAT},\n  "models": {inner}\n}}\n'


def _model_text(model: LockedModel) -> str:
    facts = ("kind", "source", "revision", "license", "entry", "digest")
    lines = [f"      {_quoted(fact)}: {_quoted(getattr(model, fact))}," for fact in facts]
    files = [
        f'        {_quoted(file.path)}: {{"size": {file.size}, "sha256": {_quoted(file.sha256)}}}'
        for file in sorted(model.files, key=lambda file: file.path)
    ]
    return "\n".join(["{", *lines, '      "files": {', ",\n".join(files), "      }", "    }"])


def _quoted(text: str) -> str:
    return json.dumps(text, ensure_ascii=False)
