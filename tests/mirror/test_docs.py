"""docs/mirror.md says what there is."""

import re
from typing import get_args

from serve.mirror.metrics import Metrics
from serve.mirror.route import Name, route
from tests.house.source import ROOT

PAGE = (ROOT / "docs" / "mirror.md").read_text()


def test_every_series_is_documented_and_no_other() -> None:
    there = set(re.findall(r"^# TYPE (inhouse_\w+)", Metrics().text().decode(), re.MULTILINE))
    assert set(re.findall(r"`(inhouse_mirror_\w+)`", PAGE)) == there


def test_every_route_is_documented() -> None:
    rows = re.findall(r"^\| (`/.*?) \|", PAGE, re.MULTILINE)
    paths = [path for row in rows for path in re.findall(r"`(/[^?`\[]*)", row)]
    documented = {route(path.replace("REPO", "org/m").encode()).name for path in paths}
    assert documented == set(get_args(Name)) - {"other"}
