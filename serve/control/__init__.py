"""The admin API on `control.sock`: the supervisor answers, the CLI and the gateways ask.

In: names of models, terms of keys, the wish to stop. Out: statuses, rosters, keys, the audit log,
and errors as they are. Who may open the socket may do everything, so it is the owner's alone; it
refuses to know the network.
"""

from serve.control.client import Client
from serve.control.server import serve_control
from serve.control.status import Status

__all__ = ["Client", "Status", "serve_control"]
