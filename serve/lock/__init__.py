"""`models.lock`: which bytes are meant by a name, made to be committed."""

from serve.lock.lock import Lock, LockedFile, LockedModel

__all__ = ["Lock", "LockedFile", "LockedModel"]
