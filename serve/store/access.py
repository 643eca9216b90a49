"""How to reach the Hub."""

from dataclasses import dataclass, field
from pathlib import Path


@dataclass(frozen=True, slots=True)
class HubAccess:
    """How to reach the Hub. `home` is what the Hub client calls HF_HOME."""

    endpoint: str
    token: str | None = field(repr=False)
    home: Path
