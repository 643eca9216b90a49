"""This machine, as far as the environment leaves it to us."""

import os

from serve.hardware import Machine, read_machine
from serve.settings import Settings


def read(settings: Settings, *, is_measured: bool = False) -> Machine:
    """The machine now, without the cards that CUDA_VISIBLE_DEVICES hides.

    `is_measured`: measure the bandwidth of its memory, if nobody did before.
    """
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    return read_machine(visible, settings.paths.home, is_measured=is_measured)
