"""Signatures by OpenSSF's rules, made and proved by the real package too."""

import base64
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from serve.bundle import Trust, inspect
from serve.bundle.openssf import verify
from serve.bundle.part import MANIFEST, OPENSSF
from serve.bundle.signature import BadSignature
from serve.errors import BadFile, NotAllowed
from tests.bundle.forgery import rebuilt, with_manifest
from tests.bundle.machines import HUB_SPEC, Machine, members
from tests.store.models import Recorder

pytest.importorskip("model_signing")


@pytest.fixture
def keys(tmp_path: Path) -> tuple[Path, Path]:
    return make_keys(tmp_path / "ec")


def make_keys(stem: Path, curve: str = "prime256v1") -> tuple[Path, Path]:
    private, public = stem.with_suffix(".pem"), stem.with_suffix(".pub")
    make = ["openssl", "ecparam", "-name", curve, "-genkey", "-noout", "-out", str(private)]
    subprocess.run(make, check=True, capture_output=True)
    show = ["openssl", "pkey", "-in", str(private), "-pubout", "-out", str(public)]
    subprocess.run(show, check=True, capture_output=True)
    return private, public


@pytest.fixture
def signed(here: Machine, stick: Path, keys: tuple[Path, Path]) -> Path:
    return here.export(stick / "o.inhouse", openssf_key=keys[0]).files[0]


def test_the_signer_is_known_by_a_public_key(
    there: Machine, signed: Path, keys: tuple[Path, Path]
) -> None:
    trust = Trust.in_keys([keys[1]])
    [part] = inspect([signed], trust, Recorder()).parts
    assert part.problem is None and part.signer == trust.signers[0]
    there.trust = trust
    assert there.take(signed).signer == trust.signers[0] and there.holds(HUB_SPEC)


def test_nobody_knows_a_signer_without_its_key(there: Machine, signed: Path) -> None:
    [part] = inspect([signed], Trust(), Recorder()).parts
    assert part.problem is None and part.signer is None
    assert there.take(signed).signer is None


def test_another_key_is_asked_for(there: Machine, signed: Path, tmp_path: Path) -> None:
    there.trust = Trust.in_keys([make_keys(tmp_path / "other")[1]])
    with pytest.raises(NotAllowed) as told:
        there.take(signed)
    assert told.value.value == "not signed"


def test_a_manifest_that_was_changed(there: Machine, signed: Path, keys: tuple[Path, Path]) -> None:
    with_manifest(signed, lambda record: record.update(created_at=1))
    there.trust = Trust.in_keys([keys[1]])
    with pytest.raises(BadFile, match="OpenSSF's rules is not one of this manifest"):
        there.take(signed)
    assert there.staged() == []


def test_the_package_s_own_program_proves_it(
    signed: Path, keys: tuple[Path, Path], tmp_path: Path
) -> None:
    found, folder = members(signed), tmp_path / "bundle"
    folder.mkdir()
    (folder / MANIFEST).write_bytes(found[MANIFEST])
    (tmp_path / OPENSSF).write_bytes(found[OPENSSF])
    argv = [sys.executable, "-m", "model_signing", "verify", "key", str(folder)]
    argv += ["--signature", str(tmp_path / OPENSSF), "--public_key", str(keys[1])]
    ran = subprocess.run(argv, capture_output=True, text=True)
    assert ran.returncode == 0, ran.stderr


def sign_with_exceptions(folder: Path, key: Path, target: Path) -> None:
    """What the package signs when it is told to leave a file out."""
    from model_signing import hashing, signing

    config = hashing.Config().use_file_serialization(hashing_algorithm="sha256")  # type: ignore[no-untyped-call]
    config.set_ignored_paths(paths=[folder / MANIFEST], ignore_git_paths=False)
    signer = signing.Config().use_elliptic_key_signer(private_key=key)  # type: ignore[no-untyped-call]
    signer.set_hashing_config(config).sign(folder, target)


def test_a_signature_that_leaves_the_manifest_out(keys: tuple[Path, Path], tmp_path: Path) -> None:
    """The package's verifier takes `ignore_paths` from the signature; we do not."""
    folder = tmp_path / "bundle"
    folder.mkdir()
    (folder / MANIFEST).write_bytes(b"{}")
    (folder / "other").write_bytes(b"")
    sign_with_exceptions(folder, keys[0], tmp_path / OPENSSF)
    member = (tmp_path / OPENSSF).read_bytes()
    [key] = Trust.in_keys([keys[1]]).openssf
    with pytest.raises(BadSignature):
        verify(member, b"anything", [key])


@pytest.mark.parametrize(
    "change",
    [
        lambda record: record.pop("dsseEnvelope"),
        lambda record: record.update(mediaType="x"),
        lambda record: record["dsseEnvelope"].update(payload=base64.b64encode(b"{}").decode()),
        lambda record: record["dsseEnvelope"]["signatures"][0].update(sig=""),
        lambda record: record["dsseEnvelope"].update(signatures=[]),
    ],
)
def test_signatures_that_are_none(
    there: Machine, signed: Path, keys: tuple[Path, Path],
    change: Callable[[dict[str, object]], object],
) -> None:  # fmt: skip
    found = members(signed)
    record = json.loads(found[OPENSSF])
    change(record)
    found[OPENSSF] = json.dumps(record).encode()
    signed.write_bytes(rebuilt(found))
    there.trust = Trust.in_keys([keys[1]])
    with pytest.raises(BadFile, match="its signature"):
        there.take(signed)


def test_keys_that_cannot_sign(here: Machine, stick: Path, tmp_path: Path) -> None:
    ed = tmp_path / "ed.pem"
    subprocess.run(["openssl", "genpkey", "-algorithm", "ed25519", "-out", ed], check=True)
    for key in (ed, make_keys(tmp_path / "k", "secp256k1")[0]):
        with pytest.raises(BadFile, match="elliptic curve"):
            here.export(stick / "x.inhouse", openssf_key=key)
    with pytest.raises(BadFile, match="curve"):
        Trust.in_keys([make_keys(tmp_path / "l", "secp256k1")[1]])
    assert list(stick.iterdir()) == []


def test_without_the_package_it_is_asked_for(signed: Path, keys: tuple[Path, Path]) -> None:
    """In a process where it cannot be imported."""
    look = f"inspect([Path({str(signed)!r})], Trust.in_keys([Path({str(keys[1])!r})]), Recorder())"
    program = (
        "import sys; sys.modules['model_signing'] = None\n"
        "from pathlib import Path\n"
        "from serve.bundle import Trust, inspect\n"
        "from serve.errors import ExtraMissing\n"
        "from tests.store.models import Recorder\n"
        "try:\n"
        f"    {look}\n"
        "except ExtraMissing as error:\n"
        "    print(error.extra)\n"
    )
    ran = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert ran.stdout == "signing\n", ran.stderr
