"""Which replicas are left alone for a while, and which requests are not tried again."""


class Breaker:
    """Pure state, one per gateway process; times are readings of a monotonic clock in seconds."""

    def blocked(self, now_s: float) -> frozenset[str]:
        """Ids of the replicas that are left alone now. A replica whose time is over is let out
        once, as a probe: it is blocked again until that request has told how it went."""
        return frozenset()

    def succeeded(self, replica: str) -> None:
        """It has answered (with any status: it lives)."""

    def failed(self, replica: str, now_s: float) -> None:
        """It could not be reached, or broke off."""


class Poison:
    """Requests that were there when engines died, by a keyed hash of their bytes."""

    def check(self, model: str, body: bytes) -> None:
        """Poisonous if this very body was there at two deaths. Costs next to nothing while no
        engine has died."""

    def note_death(self, model: str, body: bytes) -> None:
        """An engine of `model` died while it worked on `body` (also called for those beside it)."""
