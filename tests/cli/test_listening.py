import socket

import pytest

from serve.cli.listening import listen, url
from serve.errors import OpenDoor, PortTaken, SettingsError


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "127.0.0.2"])
def test_loopback_needs_no_key(host: str) -> None:
    with listen(host, free_port(), has_key=False) as listener:
        assert listener.get_inheritable()
        with socket.create_connection(listener.getsockname()[:2], timeout=5):
            pass


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "10.1.2.3"])
def test_beyond_loopback_needs_a_key(host: str) -> None:
    with pytest.raises(OpenDoor):
        listen(host, free_port(), has_key=False)


def test_with_a_key_everybody_may_knock() -> None:
    port = free_port()
    with listen("0.0.0.0", port, has_key=True) as listener:
        assert url(listener) == f"http://127.0.0.1:{port}"


def test_a_taken_port_is_noticed_even_if_it_may_be_shared() -> None:
    with socket.socket() as other:
        other.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        with pytest.raises(PortTaken) as caught:
            listen("127.0.0.1", port, has_key=False)
    assert (caught.value.host, caught.value.port) == ("127.0.0.1", port)


@pytest.mark.parametrize("host", ["192.0.2.1", "no.such.host.invalid"])
def test_an_address_that_is_not_ours(host: str) -> None:
    with pytest.raises(SettingsError) as caught:
        listen(host, free_port(), has_key=True)
    assert caught.value.key == "server.host" and host in caught.value.problem
