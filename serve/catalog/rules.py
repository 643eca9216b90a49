"""What a catalog file must keep that both of its readers ask for: the quick one and the one that
complains."""

from collections.abc import Mapping
from typing import Any

NAME = r"^[a-z0-9][a-z0-9._-]*(:[a-z0-9][a-z0-9._-]*)?$"
_PART = "[A-Za-z0-9_][A-Za-z0-9_.-]*"
REPO = f"^{_PART}/{_PART}$"
REPO_OR_ORGANISATION = f"^{_PART}(/{_PART})?$"
LANGUAGE = "^[a-z]{2,3}$"
REMOTE_CODE = "^(unneeded|needed|[0-9a-f]{40})$"
SHA256 = "^[0-9a-f]{64}$"

# What a text must be that does not look like this.
PATTERNS = {
    NAME: "is not a name (a-z 0-9 . _ - and one colon)",
    REPO: "must be ORGANISATION/NAME",
    REPO_OR_ORGANISATION: "must be ORGANISATION/NAME or ORGANISATION",
    LANGUAGE: "is not the code of a language (en, zh)",
    REMOTE_CODE: "must be unneeded, needed or a whole commit",
    SHA256: "must be a SHA-256 in hex",
}

# Exactly one of these is where the weights come from; ModelScope may also stand beside the Hub.
SOURCES = ("repo", "modelscope", "wheel", "dir", "bundle")
SHORTEST_CONTEXT = 16


def license_problem(commercial: Any, note: Any) -> str | None:
    """What is wrong with a licence whose keys are right one by one."""
    is_silent = commercial == "conditions" and not note
    return "must say its conditions in a note" if is_silent else None


def source_problem(entry: Mapping[str, Any]) -> str | None:
    """What is wrong with where an entry's weights come from; its keys are right one by one."""
    given = [name for name in SOURCES if entry.get(name) is not None]
    if len(given) != 1 and given != ["repo", "modelscope"]:
        return f"must have exactly one of: {', '.join(SOURCES)}"
    if given == ["modelscope"] and "/" not in entry["modelscope"]:
        return "modelscope alone must be ORGANISATION/NAME"
    if entry.get("revision") is not None and given[0] not in ("repo", "modelscope"):
        return "revision goes with repo and modelscope only"
    if entry.get("variants") and given[0] != "repo":
        return "variants go with repo only"
    return None
