"""The journal: what gateways write down of each request, before its client hears the end of it.

In: records. Out: the same records, read by the supervisor, also those of a gateway that was killed.
Refuses to know text, prices and databases.
"""

from serve.journal.reader import Journals, Writer
from serve.journal.records import End, Refusal, Start
from serve.journal.writer import Journal

__all__ = ["End", "Journal", "Journals", "Refusal", "Start", "Writer"]
