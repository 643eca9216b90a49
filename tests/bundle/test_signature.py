"""Who signed, and who must have."""

import hashlib
import json
import subprocess
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
)

from serve.bundle import Trust, inspect, read_private_key
from serve.bundle.part import MANIFEST, SIGNATURE
from serve.bundle.signature import fingerprint, sign, verify
from serve.errors import BadFile, LockMismatch, NotAllowed
from serve.lock import Lock, LockedFile, LockedModel
from tests.bundle.forgery import rebuilt, with_manifest
from tests.bundle.machines import HUB_SPEC, REPO, Machine, members
from tests.fakes.fake_hub import FakeHub
from tests.store.models import Recorder

KEY, OTHER = Ed25519PrivateKey.from_private_bytes(b"k" * 32), Ed25519PrivateKey.generate()
SIGNER = fingerprint(KEY.public_key())


@pytest.fixture
def signed(here: Machine, stick: Path) -> Path:
    written = here.export(stick / "s.inhouse", key=KEY)
    assert written.signer == SIGNER
    return written.files[0]


def test_the_signer_is_told(there: Machine, signed: Path, bundle: Path) -> None:
    assert inspect([signed], Trust(), Recorder()).parts[0].signer == SIGNER
    assert inspect([bundle], Trust(), Recorder()).parts[0].signer is None
    assert there.take(signed).signer == SIGNER


def test_who_must_sign(there: Machine, signed: Path, bundle: Path) -> None:
    there.trust = Trust((fingerprint(OTHER.public_key()),))
    with pytest.raises(NotAllowed) as told:
        there.take(signed)
    assert (told.value.rule, told.value.value) == ("policy.signers", SIGNER)
    there.trust = Trust((fingerprint(OTHER.public_key()), SIGNER))
    with pytest.raises(NotAllowed) as told:
        there.take(bundle)
    assert told.value.value == "not signed"
    assert there.staged() == [] and not there.holds(HUB_SPEC)
    assert there.take(signed).signer == SIGNER and there.holds(HUB_SPEC)


def test_every_part_is_signed(here: Machine, there: Machine, stick: Path) -> None:
    parts = here.export(stick / "p.inhouse", key=KEY, max_bytes=24_000).files
    there.trust = Trust((SIGNER,))
    strip(parts[2])
    with pytest.raises(NotAllowed):
        there.take(*parts)
    for part in parts[:2]:
        with pytest.raises(BadFile, match="not come yet"):
            there.take(part)


def strip(part: Path) -> None:
    found = members(part)
    del found[SIGNATURE]
    part.write_bytes(rebuilt(found))


def test_a_signature_of_another_manifest(there: Machine, signed: Path) -> None:
    with_manifest(signed, lambda record: record.update(created_at=1))
    with pytest.raises(BadFile, match="its signature is not one of this manifest"):
        there.take(signed)
    [part] = inspect([signed], Trust(), Recorder()).parts
    assert part.problem == "its signature is not one of this manifest" and part.signer is None


@pytest.mark.parametrize(
    "member",
    [b"", b"{}", b"[]", b'{"algorithm":"none","key":"","signature":""}', b"\xff",
     b'{"algorithm":"ed25519","key":"AAAA","signature":"AAAA"}',
     b'{"algorithm":"ed25519","key":1,"signature":2}', b"[" * 500],
)  # fmt: skip
def test_signatures_that_are_none(there: Machine, signed: Path, member: bytes) -> None:
    found = members(signed)
    found[SIGNATURE] = member
    signed.write_bytes(rebuilt(found))
    with pytest.raises(BadFile, match="its signature "):
        there.take(signed)
    assert there.staged() == []


def test_a_signature_is_for_bundles_only(signed: Path) -> None:
    """The signed text begins with what it is for, so no signature is good for anything else."""
    found = members(signed)
    assert verify(found[SIGNATURE], found[MANIFEST]) == SIGNER
    record = json.loads(found[SIGNATURE])
    assert sign(KEY, b"") != sign(KEY, found[MANIFEST])
    assert len(sign(KEY, b"")) == len(found[SIGNATURE]) and set(record) == {
        "algorithm", "key", "signature",
    }  # fmt: skip


def pem(folder: Path) -> tuple[Path, Path]:
    private, public = folder / "key.pem", folder / "pub.pem"
    private.write_bytes(KEY.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    public.write_bytes(
        KEY.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    )
    return private, public


def test_keys_are_pem_files(tmp_path: Path) -> None:
    private, public = pem(tmp_path)
    assert fingerprint(read_private_key(private).public_key()) == SIGNER
    assert Trust.in_keys([public]).signers == (SIGNER,)
    for wrong, read in [(public, read_private_key), (private, lambda path: Trust.in_keys([path]))]:
        with pytest.raises(BadFile):
            read(wrong)
    for path in (tmp_path / "none", tmp_path):
        with pytest.raises(BadFile, match="cannot be read"):
            read_private_key(path)
        with pytest.raises(BadFile, match="cannot be read"):
            Trust.in_keys([path])


def test_openssl_makes_keys_and_tells_the_same_fingerprint(tmp_path: Path) -> None:
    private, public = tmp_path / "k.pem", tmp_path / "p.pem"
    subprocess.run(["openssl", "genpkey", "-algorithm", "ed25519", "-out", private], check=True)
    subprocess.run(["openssl", "pkey", "-in", private, "-pubout", "-out", public], check=True)
    der = subprocess.run(
        ["openssl", "pkey", "-pubin", "-in", public, "-outform", "DER"],
        check=True, capture_output=True,
    ).stdout  # fmt: skip
    assert Trust.in_keys([public]).signers == (hashlib.sha256(der).hexdigest(),)
    rsa = tmp_path / "rsa.pem"
    subprocess.run(
        ["openssl", "genpkey", "-algorithm", "RSA", "-out", rsa], check=True, capture_output=True
    )
    with pytest.raises(BadFile, match="is no Ed25519 key"):
        read_private_key(rsa)


def test_an_older_signed_bundle_is_good_still_and_what_it_replaces_is_told(
    here: Machine, there: Machine, signed: Path, hub: FakeHub, stick: Path
) -> None:
    """A signature says who, not when it was the newest; what is wanted, only a lock can say."""
    hub.repos[REPO]["config.json"] = b'{"architectures": ["LlamaForCausalLM"], "newer": 1}'
    old = here.store.manifest(HUB_SPEC).revision
    here.store.pull(HUB_SPEC, renew=True)
    [newer] = here.export(stick / "n.inhouse", key=KEY).files
    there.trust = Trust((SIGNER,))
    new = there.take(newer).weights[0].revision
    assert new != old and there.seen.notes == []
    assert there.take(signed).weights[0].revision == old
    [note] = there.seen.notes
    assert f"tiny: {new[:12]} is here" in note and f"brings {old[:12]}" in note
    there.lock = lock_on(here, new)
    there.seen.notes.clear()
    with pytest.raises(LockMismatch):
        there.take(signed)


def lock_on(machine: Machine, revision: str) -> Lock:
    [held] = [one for one in machine.store.manifests() if one.revision == revision]
    files = tuple(LockedFile(file.path, file.size, file.sha256) for file in held.files)
    return Lock((
        LockedModel(
            "tiny", held.kind, held.source, revision, held.license, HUB_SPEC.digest, held.digest,
            files,
        ),
    ))  # fmt: skip
