"""Transfers: slow clients, many clients, and files that go or change in the middle."""

import contextlib
import os
import random
import threading

import psutil
import pytest

from serve.mirror import Terms
from serve.mirror.reading import Patience
from tests.mirror.houses import (
    BIG,
    House,
    big_house,
    body_of,
    read_all,
    serving,
    started,
    status_of,
)


def test_who_is_in_the_middle_of_a_removed_file_gets_all_of_it(house: House) -> None:
    content = big_house(house, 64 << 20)
    with serving(house.store) as mirror, started(mirror) as client:
        seal = house.store.manifests()[0]
        house.forget(seal)
        (seal.path / "model.safetensors").unlink()
        assert body_of(read_all(client)) == content
        assert mirror.ask("/api/models/org/big").status == 404


@pytest.mark.parametrize("harm", ["write", "truncate"])
def test_a_file_that_is_changed_meanwhile_is_never_finished(house: House, harm: str) -> None:
    content = big_house(house, 64 << 20)
    with serving(house.store) as mirror, started(mirror) as client:
        place = house.store.manifests()[0].path / "model.safetensors"
        if harm == "write":
            with place.open("r+b") as file:
                file.write(b"changed")
        else:
            os.truncate(place, len(content) // 2)
        assert len(body_of(read_all(client))) < len(content)


def test_a_hundred_slow_clients_cost_no_memory(house: House) -> None:
    big_house(house, 32 << 20)
    with serving(house.store) as mirror, contextlib.ExitStack() as stack:
        process = psutil.Process()
        before = process.memory_info().rss
        for _ in range(100):
            stack.enter_context(started(mirror))
        assert mirror.metric("inhouse_mirror_transfers_running") == 100
        assert process.memory_info().rss - before < 32 << 20
        assert mirror.ask("/healthz").status == 200


def test_idle_connections_make_room_and_busy_ones_do_not(house: House) -> None:
    big_house(house, 64 << 20)
    with serving(house.store, Terms(most_connections=3, drain_s=1)) as mirror:
        idle = [mirror.connect() for _ in range(3)]
        idle[0].sendall(b"GET /slow-loris HTT")
        assert mirror.ask("/healthz").status == 200
        busy = [started(mirror) for _ in range(3)]
        assert mirror.ask("/healthz").status == 503
        for client in (*busy, *idle):
            client.close()


def test_who_is_slow_to_ask_is_told_so(house: House) -> None:
    with serving(house.store, Terms(patience=Patience(head_s=0.2))) as mirror:
        with mirror.connect() as client:
            client.sendall(b"GET /healthz HTTP/1.1\r\nHost:")
            assert status_of(read_all(client)) == 408
        with mirror.connect() as client:
            client.sendall(
                b"POST /api/models/a/b/paths-info/c HTTP/1.1\r\nContent-Length: 9\r\n\r\n1"
            )
            assert status_of(read_all(client)) == 408


def test_who_asks_nothing_is_left(house: House) -> None:
    with (
        serving(house.store, Terms(patience=Patience(idle_s=0.2))) as mirror,
        mirror.connect() as client,
    ):
        client.sendall(b"GET /healthz HTTP/1.1\r\n\r\n")
        assert read_all(client).endswith(b"ok\n")


def test_who_stops_reading_is_left(house: House, caplog: pytest.LogCaptureFixture) -> None:
    content = big_house(house, 64 << 20)
    with (
        serving(house.store, Terms(patience=Patience(stall_s=0.2))) as mirror,
        started(mirror) as client,
    ):
        while mirror.metric("inhouse_mirror_transfers_running"):
            pass
        assert len(body_of(read_all(client))) < len(content)
    assert "stopped reading" in caplog.text


def test_many_clients_each_get_their_own_bytes(house: House) -> None:
    content = big_house(house, 8 << 20)
    wrong: list[str] = []

    def fetch(seed: int) -> None:
        rng = random.Random(seed)
        for _ in range(20):
            begin = rng.randrange(len(content))
            end = min(begin + rng.randrange(1, 1 << 20), len(content))
            url = "/org/big/resolve/main/model.safetensors"
            answer = mirror.ask(url, Range=f"bytes={begin}-{end - 1}")
            if answer.body != content[begin:end]:
                wrong.append(f"{begin}-{end}: {answer.status}")

    with serving(house.store) as mirror:
        threads = [threading.Thread(target=fetch, args=(seed,)) for seed in range(16)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert not wrong
        assert mirror.metric("inhouse_mirror_transfers_running") == 0


def test_a_limited_rate_is_shared_by_clients(house: House) -> None:
    content = big_house(house, 1 << 20)
    with serving(house.store, Terms(rate=4 << 20)) as mirror:
        found: list[bytes] = []
        threads = [
            threading.Thread(target=lambda: found.append(body_of(mirror.say(BIG))))
            for _ in range(3)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert found == [content] * 3
