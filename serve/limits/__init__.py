"""Who may come in now: limits, a bounded fair queue, reservations that are settled once.

In: a request's key, tenant, model and size. Out: a ticket, a wait, or a refusal that names the
limit. Refuses to know HTTP and engines.

What is counted, and when: `rates`. Where the counts are: `table`. Whose turn it is: `queue`.
The short way that most requests take: `party`; all others, and the waiting: `claim`.
"""

from serve.limits.admission import Admission, Ask, Ticket
from serve.limits.table import Table

__all__ = ["Admission", "Ask", "Table", "Ticket"]
