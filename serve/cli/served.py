"""What a server that runs on this machine serves, for verbs that must not take it away."""

from serve.cli import rooms
from serve.cli.late import late
from serve.errors import NotRunning
from serve.settings import Settings

_client = late("serve.cli.live:client")


def served_names(settings: Settings) -> frozenset[str]:
    """The models of the server that runs, whatever their state; none if no server does."""
    if not rooms.control_socket(settings).exists():
        return frozenset()  # known without all that it takes to ask
    try:
        return frozenset(model.name for model in _client(settings).status().models)
    except NotRunning:
        return frozenset()
