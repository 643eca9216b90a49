"""A gateway's part in a race: enters and leaves as fast as it can, and proves from outside of the
table that a limit on requests at once held, by taking one of as many lock files.

Arguments: table, slot, requests (0: for ever), folder of the lock files. Prints how many got in.
"""

import fcntl
import os
import random
import sys
from pathlib import Path

from serve.errors import RateLimited
from serve.limits import Admission, Table
from serve.quota import Limits
from tests.limits.asking import ask

AT_ONCE = 5
DAILY_TOKENS = 10_000
ROOMY = Limits(tokens_per_month=10**12, nanos_per_day=10**12)


def main(file: str, slot: str, requests: str, pool: str) -> None:
    admission = Admission(Table(Path(file), int(slot)), 100)
    places = [os.open(Path(pool) / str(place), os.O_RDWR | os.O_CREAT) for place in range(AT_ONCE)]
    of_tenant = Limits(concurrency=AT_ONCE, tokens_per_day=DAILY_TOKENS)
    if requests == "0":
        of_tenant = Limits(concurrency=AT_ONCE)
    asked = ask(7, 3, of_key=ROOMY, of_tenant=of_tenant, of_model=ROOMY)
    n_in = n_asked = 0
    print("ready", flush=True)
    sys.stdin.readline()
    while requests == "0" or n_asked < int(requests):
        n_asked += 1
        try:
            ticket = admission.try_enter(asked)
        except RateLimited as refusal:
            if refusal.what == "concurrency":
                os.sched_yield()
            continue
        if ticket is None:
            continue
        n_in += 1
        place = taken(places)
        if random.random() < 0.3:
            os.sched_yield()
        fcntl.flock(place, fcntl.LOCK_UN)
        ticket.settle(7, 3)
    print(n_in, flush=True)


def taken(places: list[int]) -> int:
    for place in places:
        try:
            fcntl.flock(place, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            continue
        return place
    raise SystemExit("more requests at once than may be")


if __name__ == "__main__":
    main(*sys.argv[1:])
