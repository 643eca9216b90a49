"""Gateways and supervisors are killed at any moment: the ledger gets each request once."""

import random
import subprocess
import sys
import threading
from pathlib import Path

from sqlalchemy import select

from serve.journal.files import PLACES
from serve.ledger import schema
from serve.ledger.database import Database
from serve.ledger.importing import Importer
from tests.journal.test_kill import ROOT, wait_for_first

_APART = 10**7  # numbers of one gateway's requests from those of the next
_IMPORTER = """
import sys
from pathlib import Path
from serve.ledger.database import Database
from serve.ledger.importing import Importer
importer = Importer(Database.open(None, Path(sys.argv[1])), Path(sys.argv[2]))
while True:
    importer.step()
"""


def test_every_request_is_in_the_ledger_once(tmp_path: Path) -> None:
    kill_both(tmp_path, random.Random(3), rounds=2)


def kill_both(place: Path, chance: random.Random, rounds: int) -> None:
    """A gateway writes while a supervisor imports; both are killed, and others come."""
    folder, told = place / "journal", place / "told"
    returned = []
    for round_ in range(rounds):
        told.write_bytes(bytes([255] * 8))
        arguments = [str(folder), str(told), "group", str(2**17), str(round_ * _APART)]
        gateway_argv = [sys.executable, "-m", "tests.journal.child", *arguments]
        importer_argv = [sys.executable, "-c", _IMPORTER, str(place), str(folder)]
        with (
            subprocess.Popen(gateway_argv, cwd=ROOT) as gateway,
            subprocess.Popen(importer_argv, cwd=ROOT) as importer,
        ):
            wait_for_first(told, gateway)
            victims = [gateway, importer]
            chance.shuffle(victims)
            for victim in victims:
                threading.Event().wait(chance.uniform(0.0, 0.4))
                victim.kill()
        returned.append(int.from_bytes(told.read_bytes(), sys.byteorder))
    database = Database.open(None, place)
    Importer(database, folder).step()
    for round_, calls in enumerate(returned):
        check(database, round_, calls)
    assert list(folder.iterdir()) == []
    with database.read() as connection:
        assert connection.execute(select(schema.open_requests)).all() == []
    database.close()


def check(database: Database, round_: int, calls: int) -> None:
    """Of so many calls that had returned; one more may have done its work."""
    first = round_ * _APART
    with database.read() as connection:
        found = {int(row.id[1:]) - first: row for row in connection.execute(select(schema.usage))}
    rows = {number: row for number, row in found.items() if 0 <= number < _APART}
    done, is_half = divmod(calls, 2)
    assert sorted(rows) == list(range(len(rows)))
    assert done + is_half <= len(rows) <= done + 1
    for number, row in rows.items():
        if number >= done:  # the last one, which was cut anywhere
            continue
        if number % 2 == 0:
            assert (row.outcome, row.output_tokens) == ("ok", 20)
        else:
            assert row.outcome == "crashed" and row.is_estimated
            # Each of these keeps its place in the flight table, until there is none left.
            assert row.output_tokens == number % 1000 or number > PLACES
