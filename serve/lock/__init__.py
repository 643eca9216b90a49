"""`models.lock`: which bytes are meant by a name, made to be committed.

In: what is held. Out: a file that people review line by line, and a refusal of everything else.
"""

from serve.lock.difference import ModelChange
from serve.lock.file import read_lock, write_lock
from serve.lock.lock import Lock
from serve.lock.model import LockedFile, LockedModel

__all__ = ["Lock", "LockedFile", "LockedModel", "ModelChange", "read_lock", "write_lock"]
