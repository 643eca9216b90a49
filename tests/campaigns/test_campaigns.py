"""A few trials of each long campaign (scripts/campaign runs them in full), and their page."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.campaigns import disk_full, kills, refusals
from tests.campaigns.disk_full import NoRights
from tests.campaigns.forgery import BUNDLE, LOCK
from tests.campaigns.mutation import mutations
from tests.campaigns.report import Report, write
from tests.campaigns.subject import split, subject

ROOT = Path(__file__).parents[2]


def test_mutations_are_different_and_the_same_for_a_seed() -> None:
    vouching = {LOCK: lock_text(), BUNDLE: bytes(range(256)) * 20}
    made, again, other = (list(mutations(subject(), vouching, 400, seed)) for seed in (1, 1, 2))
    assert len({one.digest for one in made}) == 400
    assert [one.digest for one in made] == [one.digest for one in again]
    assert [one.digest for one in made] != [one.digest for one in other]
    assert len({one.family for one in made}) > 30 and len({one.gate for one in made}) > 10


def test_mutations_are_refused(tmp_path: Path) -> None:
    report = refusals.run(subject(), 80, 1, tmp_path)
    assert report.total == 80 and report.failures == []


def test_a_model_in_one_file_is_split_for_mutations() -> None:
    files = subject()
    whole = {**files, "model.safetensors": files["model-00001-of-00002.safetensors"]}
    assert split(whole).keys() == files.keys()


@pytest.mark.timeout(240)
def test_a_process_that_is_killed_leaves_all_or_nothing(tmp_path: Path) -> None:
    report = kills.run(12, 1, tmp_path)
    assert report.total == 12 and report.failures == []


@pytest.mark.timeout(240)
def test_a_full_disk_leaves_all_or_nothing(tmp_path: Path) -> None:
    try:
        report = disk_full.run(4, 1, tmp_path, deeds=("pull", "import"))
    except NoRights as missing:
        pytest.skip(str(missing))
    assert report.total == 8 and report.failures == []


def test_the_page_has_one_section_of_each_campaign(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("# Campaigns\n\nWhat they are.\n")
    for name, trials in (("one", 3), ("two", 1), ("one", 5)):
        report = Report(name, "A promise.", ("kind",))
        for _ in range(trials):
            report.passed("good")
        report.failed("it broke", "bad")
        write(page, report, f"scripts/campaign {name}")
    text = page.read_text()
    assert text.startswith("# Campaigns\n\nWhat they are.\n\n## one\n")
    assert text.count("## one") == text.count("## two") == 1
    assert "**5 of 6**" in text and "- it broke" in text and "3 of 4" not in text


def test_without_a_name_the_campaigns_are_listed_and_on_the_page() -> None:
    argv = [sys.executable, "-m", "tests.campaigns"]
    listed = subprocess.run(argv, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    names = [line.split()[0] for line in listed.splitlines()]
    page = (ROOT / "docs" / "campaigns.md").read_text()
    assert sorted(names) == sorted(set(re.findall(r"^## (\S+)", page, re.MULTILINE)))


def lock_text() -> bytes:
    digest = "a" * 64
    return (
        '{\n  "format": 1,\n  "models": {"tiny": {\n    "license": "mit",\n'
        f'    "entry": "{digest}", "digest": "{digest}", "revision": "{digest}",\n'
        f'    "files": {{"config.json": {{"size": 1, "sha256": "{digest}"}}}}\n  }}}}\n}}\n'
    ).encode()
