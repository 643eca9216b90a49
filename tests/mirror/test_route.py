"""What paths mean; and that the odd ones mean nothing."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from serve.mirror.route import Route, route


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("/healthz", Route("healthz")),
        ("/metrics", Route("metrics")),
        ("/api/models", Route("list")),
        ("/api/whoami-v2", Route("whoami")),
        ("/api/models/org/m", Route("info", "org/m")),
        ("/api/models/gpt2", Route("info", "gpt2")),
        ("/api/models/org/m/revision/main", Route("info", "org/m", "main")),
        ("/api/models/org/m/revision/refs%2Fpr%2F1", Route("info", "org/m", "refs/pr/1")),
        ("/api/models/gpt2/revision/main", Route("info", "gpt2", "main")),
        ("/api/models/org/m/tree/main", Route("tree", "org/m", "main")),
        ("/api/models/org/m/tree/main/a%2Fb", Route("tree", "org/m", "main", "a/b")),
        ("/api/models/org/m/paths-info/main", Route("paths", "org/m", "main")),
        ("/api/models/org/m/refs", Route("refs", "org/m")),
        ("/org/m/resolve/main/a/b.json", Route("resolve", "org/m", "main", "a/b.json")),
        ("/org/m/resolve/main/a%20b.json", Route("resolve", "org/m", "main", "a b.json")),
        ("/gpt2/resolve/main/config.json", Route("resolve", "gpt2", "main", "config.json")),
    ],
)
def test_the_hub_s_paths(path: str, expected: Route) -> None:
    assert route(path.encode()) == expected


@pytest.mark.parametrize(
    "path",
    [
        "", "/", "//", "healthz", "/healthz/", "//healthz", "/%68ealthz", "/api", "/api/",
        "/api/models/", "/api//models/org/m", "/api/models/org//m", "/api/datasets/org/d",
        "/api/models/org/m/revision", "/api/models/org/m/revision/", "/api/models/org/m/refs/x",
        "/org/m/resolve/main/", "/org/m/resolve/main", "/org/m/resolve//config.json",
        "/org/m/resolve/main/../config.json", "/org/m/resolve/main/%2e%2e/config.json",
        "/org/m/resolve/main/.", "/org/m/resolve/main/a%00b", "/org/m/resolve/main/a%0ab",
        "/org/m/resolve/main/a%5cb", "/org/m/resolve/main/%ff", "/org/m/blob/main/config.json",
    ],
)  # fmt: skip
def test_odd_paths_mean_nothing(path: str) -> None:
    assert route(path.encode()) == Route("other")


@given(st.binary(max_size=80))
def test_any_bytes_have_a_route(path: bytes) -> None:
    found = route(path)
    assert "\0" not in found.repo + found.path + (found.revision or "")
