"""What a gateway process is told at its start, as JSON on its command line."""

from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict


class Config(BaseModel):
    """`fd`: the listening socket that the process inherits. `control`: path of control.sock."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    fd: int
    control: Path
    max_body: int = 32 * 2**20  # bytes of a request body
    log_level: Literal["debug", "info", "warning", "error"] = "info"
    drain_s: float = 30.0  # how long running requests may go on after SIGTERM
    grace_s: float = 5.0  # how long we serve on without a supervisor
