"""TLS: who shows what to whom, also after the files have changed."""

import contextlib
import json
import socket
import ssl
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import httpx
import pytest
import trustme

from serve.errors import SettingsError
from serve.gateway.tls import Certificates, certificates
from serve.roster import Roster
from tests.fakes.fake_control import running_control
from tests.gateway.stack import until


@dataclass(frozen=True)
class Files:
    """The settings, as the gateway's configuration has them."""

    tls_cert: Path | None
    tls_key: Path | None = None
    tls_client_ca: Path | None = None


@dataclass
class Town:
    """An authority, and what a server shows that it has signed."""

    folder: Path
    authority: trustme.CA

    def issue(self, name: str = "localhost") -> Files:
        """A certificate in place of what was there."""
        made = self.authority.issue_cert(name, "127.0.0.1")
        cert, key = self.folder / "cert.pem", self.folder / "key.pem"
        made.private_key_pem.write_to_path(str(key))
        chain = b"".join(part.bytes() for part in made.cert_chain_pems)
        cert.write_bytes(chain)
        return Files(cert, key)

    def client(self, *, own: trustme.LeafCert | None = None) -> ssl.SSLContext:
        """What a client believes, and shows."""
        context = ssl.create_default_context()
        self.authority.configure_trust(context)
        if own is not None:
            own.configure_cert(context)
        return context


@pytest.fixture
def town(tmp_path: Path) -> Town:
    return Town(tmp_path, trustme.CA())


def shown(server: ssl.SSLContext, client: ssl.SSLContext) -> str:
    """The names that the server shows to the client, in a handshake without a network."""
    there, back = ssl.MemoryBIO(), ssl.MemoryBIO()
    asking = client.wrap_bio(back, there, server_hostname="localhost")
    answering = server.wrap_bio(there, back, server_side=True)
    for _ in range(10):
        for side in (asking, answering):
            with contextlib.suppress(ssl.SSLWantReadError):
                side.do_handshake()
    answering.write(b"x")  # with TLS 1.3 a server finds out last
    assert asking.read(1) == b"x"
    certificate = asking.getpeercert()
    assert certificate is not None
    return str(certificate["subjectAltName"])


def test_without_files_there_is_no_tls() -> None:
    assert certificates(Files(None)) is None
    for alone in (Files(None, Path("key")), Files(None, None, Path("ca"))):
        with pytest.raises(SettingsError):
            certificates(alone)


@pytest.mark.parametrize("part", ["tls_cert", "tls_key", "tls_client_ca"])
@pytest.mark.parametrize("content", [None, b"", b"no PEM", b"-----BEGIN CERTIFICATE-----\nx"])
def test_files_that_cannot_be_used_are_named(town: Town, part: str, content: bytes | None) -> None:
    bad = town.folder / "bad.pem"
    if content is not None:
        bad.write_bytes(content)
    good = town.issue()
    files = {"tls_cert": good.tls_cert, "tls_key": good.tls_key} | {part: bad}
    with pytest.raises(SettingsError) as caught:
        certificates(Files(**files))
    assert caught.value.key in (f"server.{part}", "server.tls_key") and "PRIVATE" not in str(caught)


def test_a_key_with_a_password_or_of_another_is_refused(town: Town) -> None:
    files = town.issue()
    other = town.authority.issue_cert("localhost")
    assert files.tls_key is not None
    other.private_key_pem.write_to_path(str(files.tls_key))
    with pytest.raises(SettingsError) as caught:
        certificates(files)
    assert caught.value.key == "server.tls_key"


def test_old_versions_are_refused(town: Town) -> None:
    tls = certificates(town.issue())
    assert tls is not None
    client = town.client()
    client.set_ciphers("ALL:@SECLEVEL=0")
    with pytest.warns(DeprecationWarning):
        client.minimum_version = ssl.TLSVersion.TLSv1
    with pytest.warns(DeprecationWarning):
        client.maximum_version = ssl.TLSVersion.TLSv1_1
    with pytest.raises(ssl.SSLError):
        shown(tls.context, client)
    for version in (ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3):
        client = town.client()
        client.minimum_version = client.maximum_version = version
        assert "localhost" in shown(tls.context, client)


def renewed(town: Town) -> Certificates:
    tls = certificates(town.issue())
    assert tls is not None
    return tls


def test_a_new_certificate_is_shown_without_a_new_context(town: Town) -> None:
    tls = renewed(town)
    context = tls.context
    assert not tls.refresh()
    town.issue("new.localhost")
    assert "new.localhost" not in shown(context, town.client())
    assert tls.refresh() and tls.context is context
    client = town.client()
    client.check_hostname = False
    assert "new.localhost" in shown(context, client)


def test_a_broken_new_file_keeps_the_old_one(town: Town, caplog: pytest.LogCaptureFixture) -> None:
    tls = renewed(town)
    (town.folder / "cert.pem").write_bytes(b"half of")
    assert not tls.refresh()
    assert "localhost" in shown(tls.context, town.client())
    assert "the old certificate stays" in caplog.text
    (town.folder / "key.pem").unlink()
    assert not tls.refresh()
    assert "localhost" in shown(tls.context, town.client())
    town.issue("later.localhost")
    assert tls.refresh()


def test_without_a_certificate_of_the_right_authority_nobody_enters(town: Town) -> None:
    ours, theirs = trustme.CA(), trustme.CA()
    ca = town.folder / "clients.pem"
    ours.cert_pem.write_to_path(str(ca))
    server = town.issue()
    tls = certificates(Files(server.tls_cert, server.tls_key, ca))
    assert tls is not None
    friend, stranger = ours.issue_cert("me"), theirs.issue_cert("me")
    assert "localhost" in shown(tls.context, town.client(own=friend))
    for client in (town.client(), town.client(own=stranger)):
        with pytest.raises(ssl.SSLError):
            shown(tls.context, client)
    theirs.cert_pem.write_to_path(str(ca))  # from now on the others
    assert tls.refresh()
    assert "localhost" in shown(tls.context, town.client(own=stranger))
    with pytest.raises(ssl.SSLError):
        shown(tls.context, town.client(own=friend))


@contextlib.contextmanager
def running_gateway(folder: Path, files: Files) -> Iterator[str]:
    """A gateway with these files; its URL without a scheme."""
    with running_control(folder / "control.sock", Roster()) as control:
        with socket.create_server(("127.0.0.1", 0)) as listener:
            port = listener.getsockname()[1]
            told = {"fd": listener.fileno(), "control": str(control.socket)}
            told |= {name: str(path) for name, path in asdict(files).items() if path}
            process = subprocess.Popen(
                [sys.executable, "-m", "serve.gateway", json.dumps(told)],
                pass_fds=(listener.fileno(),),
            )
        try:
            yield f"localhost:{port}"
        finally:
            process.kill()
            process.wait()


def is_answered(url: str, verify: ssl.SSLContext | bool) -> bool:
    try:
        return httpx.get(f"{url}/health", verify=verify, timeout=10).is_success
    except httpx.TransportError:
        return False


def test_a_gateway_shows_its_newest_certificate_to_its_clients_alone(town: Town) -> None:
    ca = town.folder / "clients.pem"
    town.authority.cert_pem.write_to_path(str(ca))
    files = replace(town.issue(), tls_client_ca=ca)
    mine = town.client(own=town.authority.issue_cert("me"))
    with running_gateway(town.folder, files) as place:
        assert is_answered(f"https://{place}", mine)
        assert not is_answered(f"https://{place}", town.client())
        assert not is_answered(f"http://{place}", verify=False)
        town.issue("elsewhere.example")
        until(lambda: not is_answered(f"https://{place}", mine), timeout_s=20)  # not its name
        mine.check_hostname = False
        assert is_answered(f"https://{place}", mine)
