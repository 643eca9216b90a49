"""The door's rules without a server: keys, addresses behind proxies, pages behind browsers."""

import random
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from serve.errors import Forbidden, KeyExpired, RequestError, SettingsError, Unauthorized
from serve.gateway.door import Caller, Door, may_use
from serve.gateway.origins import Clients, is_from_a_foreign_page, parse_networks
from serve.gateway.served import Served
from serve.quota import Key, Limits, Tenant, digest_key
from serve.roster import Roster

TEXT = "ih-abcdefghij-" + "s3cr3t7" * 7
KEY = Key("k1", digest_key(TEXT), "research", expires_at=100.0)
RICH = Tenant("research", 3, Limits(rpm=5))
PROXIES = ("10.0.0.0/8", "192.0.2.7", "fd00::/8")


def door_of(*keys: Key, tenants: tuple[Tenant, ...] = (), now: float = 50.0) -> Door:
    roster = Roster(1, (), keys, tenants, is_open=False)
    return Door(Served(roster), clock=lambda: now)


def bearer(text: str) -> dict[bytes, bytes]:
    return {b"authorization": f"Bearer {text}".encode()}


def test_a_key_brings_its_tenant_with_the_terms_of_the_operator() -> None:
    plain = door_of(KEY).enter(bearer(TEXT), "1.2.3.4", "inference")
    assert plain == Caller(KEY, Tenant("research"), "1.2.3.4")
    assert door_of(KEY, tenants=(RICH,)).enter(bearer(TEXT), "", "inference").tenant is RICH


def test_a_new_roster_counts_at_once() -> None:
    served = Served(Roster(1, (), (KEY,), is_open=False))
    door = Door(served, clock=lambda: 0.0)
    assert door.enter(bearer(TEXT), "", "inference").tenant.weight == 1
    served.update(Roster(2, (), (KEY,), (RICH,), is_open=False))
    assert door.enter(bearer(TEXT), "", "inference").tenant is RICH
    served.update(Roster(3, (), (), is_open=False))
    with pytest.raises(Unauthorized):
        door.enter(bearer(TEXT), "", "inference")


def test_a_key_ends_to_the_second() -> None:
    door_of(KEY, now=99.9).enter(bearer(TEXT), "", "inference")
    with pytest.raises(KeyExpired):
        door_of(KEY, now=100.0).enter(bearer(TEXT), "", "inference")
    with pytest.raises(Forbidden) as caught:
        door_of(KEY).enter(bearer(TEXT), "", "admin")
    assert (caught.value.reason, caught.value.name) == ("scope", "admin")


def hostile() -> Iterator[bytes]:
    """Values of an Authorization header that let nobody in."""
    chance, key = random.Random(5), TEXT.encode()
    hints = (
        b"", b" ", b"Bearer", b"Bearer ", b"\0", b"' OR '1'='1", b"Bearer ' OR 1=1 --",
        b"Bearer " + key[:-1], b"Bearer " + key + b"x", b"Bearer " + key.upper(), b"bearer" + key,
        b"Basic " + key, digest_key(TEXT).encode(), b"Bearer " + digest_key(TEXT).encode(),
        b"x" * 100_000, b"Bearer " + b"x" * 100_000, key + b"\0", b"Bearer\t" + key,
        b"Bearer " + key + b"," + key, b"Bearer \xff\xfe", b"${jndi:ldap://x}", b"%s%n", b"../../",
    )  # fmt: skip
    yield from hints
    for length in range(20, 43):  # keys that have much in common with one that is known
        yield b"Bearer " + key[:length] + bytes(chance.choices(b"abc019", k=63 - length))
    for _ in range(10_000 - len(hints)):
        word = bytearray(b"Bearer " + key)
        for _ in range(chance.randrange(1, 5)):
            word[chance.randrange(len(word))] = chance.randrange(256)
        if bytes(word).strip().lower() != b"bearer " + key.lower():
            yield bytes(word)


def test_ten_thousand_hostile_values_let_nobody_in() -> None:
    door = door_of(KEY)
    door.enter(bearer(TEXT), "", "inference")
    for value in hostile():
        for name in (b"authorization", b"x-api-key"):
            try:
                caller = door.enter({name: value}, "1.2.3.4", "inference")
            except RequestError as error:
                assert isinstance(error, Unauthorized)
                assert len(value) < 8 or value.decode("latin-1") not in str(error)
            else:  # a change that is none: of the case of `Bearer`, or of what is stripped
                assert value.partition(b" ")[2].strip() == TEXT.encode(), (value, caller)


def test_keys_that_begin_alike_are_not_confused() -> None:
    texts = [TEXT[:-1] + letter for letter in "0123456789abcdef"]
    keys = [Key(f"k{n}", digest_key(text), f"t{n}") for n, text in enumerate(texts)]
    door = door_of(*keys)
    for key, text in zip(keys, texts, strict=True):
        assert door.enter(bearer(text), "", "inference").key is key


@pytest.mark.parametrize(
    ("forwarded", "peer", "address"),
    [
        ("9.9.9.9", "8.8.8.8", "8.8.8.8"),  # from nobody who is trusted
        ("9.9.9.9", "10.1.2.3", "9.9.9.9"),
        ("6.6.6.6, 9.9.9.9", "10.1.2.3", "9.9.9.9"),  # what the client itself has put there
        ("6.6.6.6, 9.9.9.9, 10.7.7.7", "10.1.2.3", "9.9.9.9"),
        ("10.9.9.9, 10.7.7.7", "10.1.2.3", "10.9.9.9"),
        ("6.6.6.6, unknown, 10.7.7.7", "10.1.2.3", "10.7.7.7"),
        ("6.6.6.6, ", "10.1.2.3", "10.1.2.3"),
        ("9.9.9.9:5555", "192.0.2.7", "9.9.9.9"),
        ("[2001:db8::1]:55", "fd00::1", "2001:db8::1"),
        ("2001:DB8::1", "::ffff:10.0.0.1", "2001:db8::1"),
        ("", "10.1.2.3", "10.1.2.3"),
        (None, "10.1.2.3", "10.1.2.3"),
        ("9.9.9.9", "not-an-address", "not-an-address"),
        ("9.9.9.9", "", ""),  # a unix socket, that is not trusted here
        ("9" * 10_000, "10.1.2.3", "10.1.2.3"),
        (",".join(["10.0.0.1"] * 10_000), "10.1.2.3", "10.0.0.1"),
        ("<script>", "10.1.2.3", "10.1.2.3"),
    ],
)
def test_the_client_is_the_rightmost_that_is_not_trusted(
    forwarded: str | None, peer: str, address: str
) -> None:
    headers = {} if forwarded is None else {b"x-forwarded-for": forwarded.encode()}
    assert Clients(PROXIES).address(headers, peer) == address
    assert Clients(()).address(headers, peer) == peer


def test_a_unix_socket_may_be_trusted() -> None:
    headers = {b"x-forwarded-for": b"9.9.9.9"}
    assert Clients(("unix",)).address(headers, "") == "9.9.9.9"
    assert Clients(("unix",)).address(headers, "10.0.0.1") == "10.0.0.1"


@given(st.binary(max_size=200), st.sampled_from(["10.0.0.1", "8.8.8.8", "", "x"]))
def test_no_header_makes_an_address_fail(forwarded: bytes, peer: str) -> None:
    found = Clients(PROXIES).address({b"x-forwarded-for": forwarded}, peer)
    assert found == peer or all(
        part.isalnum() for part in found.replace(".", ":").split(":") if part
    )


@pytest.mark.parametrize("text", ["10.0.0.1/8", "x", "", "1.2.3.4/33", "*"])
def test_what_is_no_network_is_named(text: str) -> None:
    with pytest.raises(SettingsError) as caught:
        parse_networks((text,))
    assert caught.value.key == "server.trusted_proxies"


OUR_HOSTS = (
    "localhost", "LOCALHOST:8000", "app.localhost:1", "127.0.0.1", "127.9.9.9:80", "[::1]:8000",
    "[::1]", "0.0.0.0:8000", "host.docker.internal:8000", "[::ffff:127.0.0.1]",
)  # fmt: skip
FOREIGN_HOSTS = (
    "evil.example", "localhost.evil.example", "127.0.0.1.evil.example:8000", "evil.example:80",
    "", "192.168.1.7:8000", "localhost:4000/#@x", "localhost@evil.example", "localhost evil",
    "localhost:x", "localhost:", "[::1", "[::2]", "evillocalhost", "x" * 100_000, "\xff",
    "127.1", "0x7f.1", "2130706433", "localhost.", "localhost:8000:1", "[localhost]",
)  # fmt: skip


def foreign(**headers: str) -> bool:
    return is_from_a_foreign_page(
        {
            name.replace("_", "-").encode(): value.encode("latin-1")
            for name, value in headers.items()
        }
    )


def test_a_name_that_is_made_to_point_here_is_refused() -> None:
    for host in OUR_HOSTS:
        assert not foreign(host=host), host
        assert not foreign(host=host, origin=f"http://{host}"), host
    for host in FOREIGN_HOSTS:
        assert foreign(host=host), host
        assert foreign(host="localhost", origin=f"http://{host}"), host
        assert foreign(host="localhost", origin=f"https://{host}"), host


@pytest.mark.parametrize(
    ("headers", "is_foreign"),
    [
        ({}, False),  # no browser
        ({"origin": "null"}, True),
        ({"origin": "http://localhost:3000", "sec_fetch_site": "cross-site"}, False),
        ({"origin": "https://evil.example", "sec_fetch_site": "none"}, True),
        ({"sec_fetch_site": "cross-site"}, True),  # a picture, a link
        ({"sec_fetch_site": "same-site"}, False),
        ({"sec_fetch_site": "none"}, False),
        ({"origin": "vscode-webview://abc"}, False),
        ({"origin": "tauri://localhost"}, False),
        ({"origin": "file://"}, True),
        ({"origin": "chrome-extension://abc"}, True),
        ({"origin": "httpx://localhost"}, True),
        ({"origin": ""}, True),
    ],
)
def test_pages_of_other_sites_are_refused(headers: dict[str, str], is_foreign: bool) -> None:
    assert foreign(host="localhost:8000", **headers) is is_foreign


def test_without_keys_the_door_is_for_this_machine_alone() -> None:
    door = Door(Served(Roster()))
    local = {b"host": b"localhost:8000"}
    assert door.enter(local, "127.0.0.1", "inference") == Caller(None, Tenant(""), "127.0.0.1")
    with pytest.raises(Forbidden) as caught:
        door.enter(local | {b"origin": b"https://evil.example"}, "127.0.0.1", "inference")
    assert (caught.value.reason, caught.value.name) == ("origin", "https://evil.example")
    with pytest.raises(Forbidden) as caught:
        door.enter({b"host": b"e" * 5000}, "127.0.0.1", "metrics")
    assert caught.value.name == "e" * 100
    with pytest.raises(Unauthorized):
        door.enter(local, "127.0.0.1", "admin")


def test_where_keys_are_asked_for_pages_may_come_from_anywhere() -> None:
    headers = bearer(TEXT) | {b"host": b"llm.example", b"origin": b"https://app.example"}
    assert door_of(KEY).enter(headers, "8.8.8.8", "inference").key == KEY


def test_models_are_named_or_matched() -> None:
    def key(*models: str) -> Key:
        return Key("k", "", "t", models=models)

    assert may_use(None, "x") and may_use(key(), "x")
    assert may_use(key("qwen*"), "Qwen3-8B", "q") and may_use(key("Q"), "Qwen3-8B", "q")
    assert not may_use(key("qwen", "llama-?"), "qwen3-8b")
    assert not may_use(key("q*"), "")
    assert not may_use(key("*" * 40 + "x"), "a" * 5000)
