"""Which replica answers a request."""

from collections.abc import Mapping

from serve.roster.roster import Replica, ServedModel


def choose(model: ServedModel, running: Mapping[str, int], tie: int) -> Replica:
    """The replica with the fewest running requests (`running`: replica id → requests).

    Among equals the `tie`-th takes it, so that a counter spreads the first requests; a fixed
    order would send every cold request to the same replica. `model` must have a replica.
    """
    fewest = min(running.get(replica.id, 0) for replica in model.replicas)
    idlest = [replica for replica in model.replicas if running.get(replica.id, 0) == fewest]
    return idlest[tie % len(idlest)]
