"""Servers of somebody else behind TLS: believed as gateways believe them."""

import asyncio
import hashlib
import logging
from collections.abc import Callable
from pathlib import Path

import pytest
import trustme
from cryptography import x509

from serve.errors import SourceUnreachable
from serve.fleet.keeper import ModelStatus
from serve.settings import ModelTerms
from serve.wire import from_wire
from tests.fakes.tls_front import running_tls
from tests.fleet.houses import short_folder
from tests.fleet.upstreams import front, listening, vllm

Make = Callable[[trustme.CA], trustme.LeafCert]


def status_of(folder: Path, shown: trustme.LeafCert) -> ModelStatus:
    """What becomes of a model whose server shows this certificate."""

    async def load() -> ModelStatus:
        async with listening(vllm(), folder / "a.sock"):
            with running_tls(folder / "a.sock", shown) as port:
                terms = ModelTerms("theirs", (f"https://localhost:{port}",), "their-model")
                async with front(folder, terms) as made:
                    return await made.load("theirs")

    return asyncio.run(load())


@pytest.fixture
def authority(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> trustme.CA:
    """It is believed, as an operator says it."""
    made = trustme.CA()
    made.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "ca.pem"))
    return made


def test_a_good_certificate_is_believed(authority: trustme.CA) -> None:
    with short_folder() as folder:
        status = status_of(folder, authority.issue_cert("localhost"))
    assert (status.state, status.context_tokens) == ("ready", 4096)


def test_all_that_openssl_goes_by_counts(
    authority: trustme.CA, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A gateway leaves it to OpenSSL whom this machine believes, so the probe must not go by a list
    of its own, nor by the file alone."""
    others = tmp_path / "others.pem"
    trustme.CA().cert_pem.write_to_path(str(others))
    certs = tmp_path / "certs"
    certs.mkdir()
    (certs / f"{name_hash(authority)}.0").symlink_to(tmp_path / "ca.pem")
    monkeypatch.setenv("SSL_CERT_FILE", str(others))
    monkeypatch.setenv("SSL_CERT_DIR", str(certs))
    with short_folder() as folder:
        assert status_of(folder, authority.issue_cert("localhost")).state == "ready"


def name_hash(authority: trustme.CA) -> str:
    """What OpenSSL looks for in a folder: 32 bits of the name's SHA-1, in lower case as UTF-8."""
    subject = x509.load_pem_x509_certificate(authority.cert_pem.bytes()).subject
    plain = [
        x509.NameAttribute(each.oid, " ".join(str(each.value).lower().split())) for each in subject
    ]
    parts = b"".join(x509.Name([each]).public_bytes()[2:] for each in plain)
    return hashlib.sha1(parts).digest()[3::-1].hex()


@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (lambda _: trustme.CA().issue_cert("localhost"), "certificate verify failed"),
        (lambda authority: authority.issue_cert("elsewhere.example"), "Hostname mismatch"),
    ],
    ids=["unknown authority", "another name"],
)
def test_a_bad_certificate_is_told(
    authority: trustme.CA, make: Make, reason: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING)
    with short_folder() as folder:
        status = status_of(folder, make(authority))
    problem = from_wire(status.problem or {})
    assert status.state == "starting"
    assert isinstance(problem, SourceUnreachable) and reason in problem.reason
    assert "upstream is not there" in caplog.text and reason in caplog.text
