"""What can be served now: the snapshot, its feed, and the choice of a replica."""

from serve.roster.choice import Chooser
from serve.roster.feed import follow
from serve.roster.roster import Replica, Roster, ServedModel, State

__all__ = ["Chooser", "Replica", "Roster", "ServedModel", "State", "follow"]
