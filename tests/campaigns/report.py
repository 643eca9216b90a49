"""What a campaign has found, and the page that tells it to people."""

import os
import re
import time
from collections import Counter
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

_VENDORS = {"GenuineIntel": "Intel", "AuthenticAMD": "AMD"}


@dataclass
class Report:
    """Trials by their kind, and what went wrong in them."""

    name: str
    promise: str
    columns: tuple[str, ...]
    started_s: float = field(default_factory=time.monotonic)
    trials: Counter[tuple[str, ...]] = field(default_factory=Counter)
    failures: list[str] = field(default_factory=list)

    @property
    def total(self) -> int:
        return self.trials.total()

    def passed(self, *kind: str) -> None:
        """One trial of this kind ended as it must."""
        self.trials[kind] += 1

    def failed(self, what: str, *kind: str) -> None:
        """One trial did not."""
        self.trials[kind] += 1
        self.failures.append(what)

    def summary(self) -> str:
        """In one line."""
        good = self.total - len(self.failures)
        return f"{self.name}: {good:,} of {self.total:,} in {self._seconds():.0f} s"

    def section(self, command: str) -> str:
        """As a section of the page."""
        facts = {
            "command": f"`{command}`",
            "date": f"{datetime.now(UTC):%Y-%m-%d %H:%M} UTC",
            "machine": machine(),
            "time": f"{self._seconds():.0f} s",
            "result": f"**{self.total - len(self.failures):,} of {self.total:,}**",
        }
        rows = [(*kind, f"{count:,}") for kind, count in sorted(self.trials.items())]
        parts = [f"## {self.name}", self.promise, _table(("", ""), list(facts.items()))]
        parts.append(_table((*self.columns, "trials"), rows))
        if self.failures:
            parts.append("Failed:\n\n" + "\n".join(f"- {what}" for what in self.failures[:50]))
        return "\n\n".join(parts) + "\n"

    def _seconds(self) -> float:
        return time.monotonic() - self.started_s


def write(page: Path, report: Report, command: str) -> None:
    """Put the report's section into the page, in the place of the one that was there."""
    text = page.read_text() if page.exists() else ""
    head, *sections = re.split(r"^(?=## )", text, flags=re.MULTILINE)
    by_name = {section.split("\n")[0]: section.strip() + "\n" for section in sections}
    fresh = report.section(command)
    by_name[fresh.split("\n")[0]] = fresh
    page.write_text("\n".join([head.strip() + "\n", *by_name.values()]))


def machine() -> str:
    """The machine that we may use: "2 Intel cores"."""
    found = re.search(r"vendor_id\s*:\s*(\S+)", Path("/proc/cpuinfo").read_text())
    vendor = _VENDORS.get(found[1], found[1]) if found else ""
    return " ".join(f"{len(os.sched_getaffinity(0))} {vendor} cores".split())


def _table(head: tuple[str, ...], rows: list[tuple[str, ...]]) -> str:
    lines = [head, ("---",) * len(head), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)
