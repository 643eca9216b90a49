"""What vouches for the audit log and lies outside of the database: its key, and where it ended."""

import logging
import os
import secrets
from pathlib import Path

from serve.disk import disk_errors, locked, write_atomically
from serve.errors import AuditBroken, DiskFull, NotWritable
from serve.ledger.chain import read_head, sign_head
from serve.ledger.records import Head

_logger = logging.getLogger(__name__)
_KEY_BYTES = 32


class Seal:
    """Two files in `home`: `audit.key`, for the owner alone, and `audit.head`.

    Both are made with the first record. Hosts that share a database share the key: it is copied
    from the first to the others.
    """

    def __init__(self, home: Path) -> None:
        self.key_file, self.head_file = home / "audit.key", home / "audit.head"

    def key(self, last: Head) -> bytes:
        """The key of the log that ends with `last`; AuditBroken if that was begun elsewhere."""
        if not last.seq and not self.key_file.exists():
            self._make_key()
        try:
            return bytes.fromhex(self.key_file.read_text().strip())
        except FileNotFoundError:
            problem = f"{self.key_file} is missing: copy it from where the log was begun"
            raise AuditBroken(last.seq, problem) from None
        except (OSError, ValueError) as error:
            raise AuditBroken(last.seq, f"{self.key_file} cannot be read: {error}") from error

    def head(self, key: bytes) -> Head | None:
        """Where the log ended when this host last wrote to it; AuditBroken if it was changed."""
        try:
            return read_head(key, self.head_file.read_bytes())
        except FileNotFoundError:
            return None

    def note(self, key: bytes, head: Head) -> None:
        """Remember that the log ends with `head`; never goes back. A failure is logged only: the
        record is kept already, and the next one is noted again."""
        try:
            with locked(self.head_file.with_suffix(".lock"), lambda: None):
                known = self.head(key)
                if known is None or known.seq < head.seq or head.is_after_cut:
                    write_atomically(self.head_file, sign_head(key, head))
        except (DiskFull, NotWritable, OSError) as error:
            _logger.warning("the end of the audit log could not be noted: %s", error)

    def _make_key(self) -> None:
        with disk_errors(self.key_file):
            self.key_file.parent.mkdir(parents=True, exist_ok=True)
            part = self.key_file.with_name(f".audit.key.{secrets.token_hex(8)}.part")
            fd = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
            try:
                with os.fdopen(fd, "w") as file:
                    file.write(secrets.token_hex(_KEY_BYTES) + "\n")
                    file.flush()
                    os.fsync(fd)
                os.link(part, self.key_file)  # whole, and never over another one
            except FileExistsError:
                pass  # somebody was quicker
            finally:
                part.unlink()
