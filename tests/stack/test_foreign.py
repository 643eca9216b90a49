"""A house in front of a server that somebody else runs, behind TLS."""

from pathlib import Path

import httpx
import pytest
import trustme

from tests.fakes.tls_front import running_tls
from tests.gateway.stack import running_engine
from tests.stack.house import running_house

MARK = "zebra-4711"


@pytest.mark.timeout(120)
def test_supervisor_and_gateways_believe_whom_the_environment_names(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    authority = trustme.CA()
    authority.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "ca.pem"))
    socket, shown = tmp_path / "s", authority.issue_cert("localhost")
    with running_engine(socket, "there") as engine, running_tls(socket, shown) as port:
        terms = {"theirs": {"url": f"https://localhost:{port}", "model": "there"}}
        with running_house(tmp_path / "house", {}, {"models": terms}) as house:
            body = {"model": "theirs", "messages": [], "max_tokens": 1}
            answer = httpx.post(f"{house.url}/v1/chat/completions", json=body, timeout=30)
        assert answer.status_code == 200
        assert engine.last()["headers"]["host"] == f"localhost:{port}"


@pytest.mark.timeout(120)
def test_one_that_is_not_believed_is_told_and_waited_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("SSL_CERT_FILE", raising=False)
    socket, shown = tmp_path / "s", trustme.CA().issue_cert("localhost")
    with running_engine(socket, "there") as engine, running_tls(socket, shown) as port:
        terms = {"theirs": {"url": f"https://localhost:{port}", "model": "there"}}
        settings = {"models": terms, "server": {"wait": "1s"}}
        with running_house(tmp_path / "house", {}, settings) as house:
            body = {"model": "theirs", "messages": [{"role": "user", "content": MARK}]}
            answer = httpx.post(f"{house.url}/v1/chat/completions", json=body, timeout=30)
            (model,) = house.status()["models"]
        assert (answer.status_code, answer.json()["error"]["code"]) == (503, "model_not_ready")
        assert "certificate verify failed" in str(model["problem"])
        log = (house.folder / "serve-1.log").read_text()
        assert "certificate verify failed" in log and MARK not in log
        assert engine.last() == {}
