"""What a request's path means. Parsed from the bytes that came, decided by tables elsewhere."""

from dataclasses import dataclass
from typing import Literal
from urllib.parse import unquote_to_bytes

Name = Literal[
    "healthz", "metrics", "whoami", "list", "info", "tree", "paths", "refs", "resolve", "other"
]
_PLAIN: dict[bytes, Name] = {
    b"/healthz": "healthz",
    b"/metrics": "metrics",
    b"/api/whoami-v2": "whoami",
    b"/api/models": "list",
}


@dataclass(frozen=True, slots=True)
class Route:
    """Where a request goes. Repository, revision and path are words to look up, never to open;
    `revision` None: none was named."""

    name: Name
    repo: str = ""
    revision: str | None = None
    path: str = ""


_OTHER = Route("other")


def route(raw_path: bytes) -> Route:
    """The route of a path as it came over the wire, without its query. Anything odd is `other`."""
    if raw_path in _PLAIN:
        return Route(_PLAIN[raw_path])
    words = [_word(part) for part in raw_path.split(b"/")[1:]]
    if not raw_path.startswith(b"/") or not all(words):
        return _OTHER
    known = [word for word in words if word]
    if known[:2] == ["api", "models"]:
        return _of_api(known[2:]) or _OTHER
    return _of_file(known) or _OTHER


def _of_api(words: list[str]) -> Route | None:
    # Repositories have two words, but old ones of the Hub's own only one.
    for length in (2, 1):
        repo, rest = "/".join(words[:length]), words[length:]
        match rest:
            case _ if len(words) < length:
                continue
            case []:
                return Route("info", repo)
            case ["revision", revision]:
                return Route("info", repo, revision)
            case ["tree", revision, *path]:
                return Route("tree", repo, revision, "/".join(path))
            case ["paths-info", revision]:
                return Route("paths", repo, revision)
            case ["refs"]:
                return Route("refs", repo)
    return None


def _of_file(words: list[str]) -> Route | None:
    for length in (2, 1):
        match words[length:]:
            case ["resolve", revision, first, *more]:
                return Route(
                    "resolve", "/".join(words[:length]), revision, "/".join((first, *more))
                )
    return None


def _word(part: bytes) -> str | None:
    """One part between slashes, decoded once; None for what no name of ours can be."""
    try:
        text = unquote_to_bytes(part).decode()
    except UnicodeDecodeError:
        return None
    is_odd = text in ("", ".", "..") or not text.isprintable() or "\\" in text
    return None if is_odd else text
