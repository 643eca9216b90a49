"""What the OS grants: found out once, by letting a guard try."""

import json
import os
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from serve.engine.process import run
from serve.errors import IsolationUnavailable
from serve.shipped import shipped

Wish = Literal["auto", "required", "off"]
Try = Callable[[tuple[str, ...]], str | None]

# Best first. As root without a user namespace: files of other users stay readable.
_LADDER = (
    ("net", "ipc", "pid"),
    ("user", "net", "ipc", "pid"),
    ("net", "ipc"),
    ("user", "net", "ipc"),
)
# Distributions' own switches against unprivileged namespaces: file → value that forbids, and cure.
_SWITCHES = (
    ("kernel/unprivileged_userns_clone", "0", "sysctl kernel.unprivileged_userns_clone=1"),
    (
        "kernel/apparmor_restrict_unprivileged_userns",
        "1",
        "an AppArmor profile that allows userns, or "
        "sysctl kernel.apparmor_restrict_unprivileged_userns=0",
    ),
    ("user/max_user_namespaces", "0", "sysctl user.max_user_namespaces=10000"),
)


@dataclass(frozen=True, slots=True)
class Isolation:
    """The namespaces of every engine; `problem` says why they are not all that there could be."""

    namespaces: tuple[str, ...] = ()
    problem: str | None = None

    @property
    def level(self) -> Literal["full", "network", "off"]:
        """full: no network, processes of its own; network: no network; off: nothing."""
        if "pid" in self.namespaces:
            return "full"
        return "network" if "net" in self.namespaces else "off"


def find_isolation(wish: Wish, attempt: Try | None = None) -> Isolation:
    """What `wish` comes to on this machine; takes about 0.1 s, in the calling thread.

    Raises IsolationUnavailable when "required" and engines could reach a network.
    """
    if wish == "off":
        return Isolation(problem="engine.isolation is off")
    found = _best(attempt or _try)
    if found.level == "off" and wish == "required":
        raise IsolationUnavailable(found.problem or "")
    return found


def guard_argv() -> tuple[str, ...]:
    """The command that runs a guard; it reads its config from stdin."""
    return (sys.executable, "-I", "-S", str(shipped("inside/guard.py")))


def _best(attempt: Try) -> Isolation:
    refusals: list[str] = []
    for namespaces in _LADDER:
        if "user" in namespaces or os.geteuid() == 0:
            refusal = attempt(namespaces)
            if refusal is None:
                return Isolation(namespaces, None if "pid" in namespaces else refusals[-1])
            refusals.append(refusal)
    return Isolation(problem=_with_cure("; ".join(dict.fromkeys(refusals))))


def _try(namespaces: tuple[str, ...]) -> str | None:
    config = {"namespaces": namespaces, "argv": []}
    code, said = run(guard_argv(), env={}, stdin=json.dumps(config).encode())
    return None if code == 0 else said.strip().removeprefix("guard: ")


def _with_cure(problem: str, root: Path = Path("/proc/sys")) -> str:
    for name, forbidding, cure in _SWITCHES:
        switch = root / name
        if switch.exists() and switch.read_text().strip() == forbidding:
            return f"{problem} ({switch} is {forbidding}; cure: {cure})"
    return problem
