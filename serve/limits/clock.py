"""What time it is: an object, so that tests may have their own."""

import time


class Clock:
    """The kernel's clocks. All processes of a machine share the monotonic one."""

    __slots__ = ()

    monotonic_ns = staticmethod(time.monotonic_ns)
    time = staticmethod(time.time)  # unix seconds; may be set back
