"""`inhouse bundle …`: what is typed and what is said."""

import json
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.cli.conftest import House, Inhouse


@pytest.fixture
def bundle(inhouse: Inhouse, house: House) -> Path:
    assert inhouse("pull", "tiny").code == 0
    target = house.folder / "x.inhouse"
    ran = inhouse("bundle", "export", "tiny", str(target))
    assert ran.code == 0 and str(target) in ran.out and "not signed" in ran.err
    return target


def key_pair(house: House) -> tuple[Path, Path]:
    """A new key to sign with, and what others trust."""
    key, public = house.folder / "key.pem", house.folder / "pub.pem"
    subprocess.run(["openssl", "genpkey", "-algorithm", "ed25519", "-out", key], check=True)
    subprocess.run(["openssl", "pkey", "-in", key, "-pubout", "-out", public], check=True)
    return key, public


def elsewhere(house: House) -> tuple[str, ...]:
    """Flags that make it another machine."""
    return ("--home", str(house.folder / "there"), "--hf-home", str(house.folder / "there-hf"))


def test_a_model_crosses_the_gap(inhouse: Inhouse, house: House, bundle: Path) -> None:
    seen = inhouse("bundle", "verify", str(bundle))
    assert seen.code == 0 and "good, not signed" in seen.out and "tiny" in seen.out
    record = json.loads(inhouse("bundle", "verify", str(bundle), "--json").out)
    assert record["is_good"] is True and record["missing"] == []
    taken = inhouse("bundle", "import", str(bundle), *elsewhere(house))
    assert taken.code == 0 and "tiny" in taken.out
    again = inhouse("bundle", "import", str(bundle), "--json", *elsewhere(house))
    assert json.loads(again.out)["weights"][0]["via"] == "bundle x.inhouse"
    assert "tiny" in inhouse("ls", *elsewhere(house)).out


def test_signed_and_in_parts(inhouse: Inhouse, house: House, bundle: Path) -> None:
    key, public = key_pair(house)
    signed = house.folder / "s.inhouse"
    ran = inhouse(
        "bundle",
        "export",
        "tiny",
        str(signed),
        "--sign",
        str(key),
        "--max-size",
        "189700",
        "--json",
    )
    assert ran.code == 0, ran.err
    files = json.loads(ran.out)["files"]
    assert len(files) == 3
    refused = inhouse("bundle", "import", str(bundle), "--signer", str(public), *elsewhere(house))
    assert (
        refused.code == 4 and "policy.signers does not allow x.inhouse: not signed" in refused.err
    )
    first = inhouse("bundle", "import", *files[1:], "--signer", str(public), *elsewhere(house))
    assert first.code == 4 and "part 1 of 3 has not come yet; what came is kept" in first.err
    alone = inhouse("bundle", "verify", files[0])
    assert alone.code == 4 and "missing: 2, 3" in alone.err and "signed by" in alone.out
    last = inhouse("bundle", "import", files[0], "--signer", str(public), *elsewhere(house))
    assert last.code == 0 and "signed by" in last.err


def test_a_damaged_bundle(inhouse: Inhouse, house: House, bundle: Path) -> None:
    content = bytearray(bundle.read_bytes())
    content[content.index(bytes(100_000)) + 500] ^= 1  # inside the weights, which are zeros
    bundle.write_bytes(content)
    for verb in ("verify", "import"):
        flags = elsewhere(house) if verb == "import" else ()
        ran = inhouse("bundle", verb, str(bundle), *flags)
        assert ran.code == 4 and "is damaged" in ran.err and str(bundle) in ran.err
    assert inhouse("ls", *elsewhere(house)).err.startswith("no weights here yet")


def test_only_what_is_locked(inhouse: Inhouse, house: House, bundle: Path) -> None:
    ran = inhouse("bundle", "import", str(bundle), "--locked", *elsewhere(house))
    assert ran.code == 4 and "models.lock" in ran.err


def test_pull_from_a_bundle(inhouse: Inhouse, house: House, bundle: Path) -> None:
    source = f"bundle:{bundle}"
    ran = inhouse("pull", "tiny", "--source", source, *elsewhere(house))
    assert ran.code == 0, ran.err
    assert "tiny" in inhouse("ls", *elsewhere(house)).out


def test_pull_asks_for_the_signature_too(inhouse: Inhouse, house: House, bundle: Path) -> None:
    _, public = key_pair(house)
    ran = inhouse(
        "pull", "tiny", "--source", f"bundle:{bundle}", "--signer", str(public), *elsewhere(house)
    )
    assert ran.code == 4 and "policy.signers does not allow x.inhouse: not signed" in ran.err
    assert inhouse("ls", *elsewhere(house)).err.startswith("no weights here yet")


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (("--max-size", "lots"), "--max-size"),
        (("--max-size", "1KiB"), "is too small"),
        (("--sign", "none.pem"), "cannot be read"),
    ],
)
def test_flags_that_cannot_be(
    inhouse: Inhouse, house: House, flags: tuple[str, ...], said: str
) -> None:
    inhouse("pull", "tiny")
    ran = inhouse("bundle", "export", "tiny", str(house.folder / "y.inhouse"), *flags)
    assert ran.code in (2, 4) and said in ran.err
    assert not list(house.folder.glob("*y.inhouse*"))


def test_a_bundle_on_another_machine_is_not_the_catalog_s_folder(
    inhouse: Inhouse, house: House, bundle: Path
) -> None:
    """The folder that the entry names is not there: the weights answer by their name."""
    shutil.rmtree(house.folder / "weights")
    assert inhouse("bundle", "import", str(bundle), *elsewhere(house)).code == 0
    shown = inhouse("show", "tiny", "--json", *elsewhere(house))
    assert json.loads(shown.out)["weights"]["via"] == "bundle x.inhouse"
