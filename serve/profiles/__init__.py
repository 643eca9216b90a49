"""Memory that real launches took, kept under `profiles/`: what plans are calibrated with.

In: a `Profile` after a launch. Out: the profile of the same key, or all of them. Refuses to guess:
a profile of another engine version, device or limit is another profile.
"""

from serve.profiles.book import ProfileBook
from serve.profiles.lessons import Lessons, lesson_key
from serve.profiles.profile import Profile, ProfileKey

__all__ = ["Lessons", "Profile", "ProfileBook", "ProfileKey", "lesson_key"]
