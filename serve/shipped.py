"""Where the files lie that are shipped beside the code: `models.yaml` and the locks."""

from pathlib import Path


def shipped(name: str) -> Path:
    """The path of a shipped file or folder: in the package (a wheel) or beside it (a checkout)."""
    package = Path(__file__).parent
    inside = package / name
    return inside if inside.exists() else package.parent / name
