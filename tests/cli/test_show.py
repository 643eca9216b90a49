"""`inhouse show` and `inhouse ls --catalog`: what people read of the catalog, and programs."""

import json
import os
import pty
import subprocess
import sys
from pathlib import Path

import pytest

from serve.catalog import ModelSpec, load_catalog
from serve.cli import about
from serve.cli.show import list_catalog
from tests.cli.conftest import House, Inhouse

CATALOG = load_catalog()
ENTRIES = [spec for spec in CATALOG.specs if spec.variant_of is None]


def shown(inhouse: Inhouse, model: str) -> dict[str, str]:
    """Label → text of `inhouse show`."""
    lines = inhouse("show", model).out.splitlines()
    start = next(at for at, char in enumerate(lines[0][5:], 5) if char != " ")
    return {line[:start].strip(): line[start:] for line in lines}


def test_show_tells_what_is_known(inhouse: Inhouse) -> None:
    facts = shown(inhouse, "qwen3-30b-a3b")
    assert facts["also called"] == "qwen3:30b-a3b"
    assert facts["variants"] == "qwen3-30b-a3b:fp8, qwen3-30b-a3b:gptq-int4"
    assert facts["from"] == "Qwen/Qwen3-30B-A3B on the Hugging Face Hub"
    assert facts["or from"] == "Qwen/Qwen3-30B-A3B on ModelScope; --source modelscope"
    assert facts["commercial use"] == "allowed"
    assert facts["languages"] == "Chinese, English"
    assert facts["parameters"] == "30.5B, 3.3B active; 56.9 GiB on disk"
    assert facts["context"].startswith("40,960 tokens; up to 131,072 with --context 131072: YaRN")
    assert facts["tools"] == "read by vLLM's parser hermes"
    assert facts["reasoning"] == "read by vLLM's parser qwen3"
    assert facts["sampling"].startswith("its makers advise temperature 0.6, top_p 0.95, top_k 20")
    assert "without thinking temperature 0.7" in facts["sampling"]
    assert "48 layers" in facts["geometry"] and "4 KV heads of 128" in facts["geometry"]
    assert facts["weights"] == "not here; inhouse pull qwen3-30b-a3b"


@pytest.mark.parametrize(
    ("model", "words"),
    [
        ("qwen2.5-3b-instruct", "not allowed: For non-commercial purposes only."),
        ("glm-5", "not known: Nobody has confirmed this model's licence; read the"),
        ("kimi-k2", "under conditions: Above 100 million monthly active users or 20 million US"),
        ("gpt-oss-20b", "allowed: A short usage policy of OpenAI's comes with it."),
    ],
)
def test_commercial_use_is_told_in_a_sentence(inhouse: Inhouse, model: str, words: str) -> None:
    assert shown(inhouse, model)["commercial use"].startswith(words)


def test_python_of_the_repository_is_told_loudly(inhouse: Inhouse, house: House) -> None:
    assert "no revision is approved: it is refused" in shown(inhouse, "kimi-k2")["remote code"]
    assert "is not fetched" in shown(inhouse, "deepseek-r1")["remote code"]
    assert "remote code" not in shown(inhouse, "qwen3-8b")
    commit = "c" * 40
    entry = {"family": "kimi-k2", "repo": "a/b", "revision": commit, "remote_code": commit}
    (house.folder / "catalog.yaml").write_text(json.dumps({"models": {"approved": entry}}))
    facts = shown(inhouse, "approved")
    assert facts["remote code"].startswith("RUNS PYTHON OF ITS REPOSITORY")
    assert facts["from"] == f"a/b on the Hugging Face Hub, revision {commit}"


def test_tools_that_need_a_template_say_which(inhouse: Inhouse) -> None:
    tools = shown(inhouse, "deepseek-v3.1")["tools"]
    assert "tool_chat_template_deepseekv31.jinja" in tools and "docs/catalog.md" in tools


def test_a_long_flag_is_cut_for_people_not_for_programs(inhouse: Inhouse) -> None:
    assert len(shown(inhouse, "starter")["flags for vLLM"]) < 200
    record = json.loads(inhouse("show", "starter", "--json").out)
    assert record["engine_args"]["chat-template"].endswith("{% endif %}")


def test_the_record_for_programs(inhouse: Inhouse) -> None:
    record = json.loads(inhouse("show", "qwen2.5-7b-instruct", "--json").out)
    assert record["source"] == {
        "kind": "hf", "repo": "Qwen/Qwen2.5-7B-Instruct", "revision": "main",
    }  # fmt: skip
    assert record["alternatives"][0]["kind"] == "modelscope"
    assert record["license"]["commercial"] == "yes"
    assert record["extension"]["context_tokens"] == 131072
    assert "hf-overrides" in record["extension"]["engine_args"]
    assert record["facts"]["languages"] == ["zh", "en"]
    assert record["facts"]["geometry"]["kv_heads"] == 4
    assert record["facts"]["weights_bytes"] == 15231233024
    assert len(record["digest"]) == 64 and record["weights"] is None
    advice = json.loads(inhouse("show", "qwen3-8b", "--json").out)["facts"]["sampling"]
    assert advice == {"temperature": 0.6, "top_p": 0.95, "top_k": 20, "min_p": 0.0}


@pytest.mark.parametrize("spec", CATALOG.specs, ids=lambda spec: str(spec.name))
def test_every_entry_can_be_told_and_written(spec: ModelSpec) -> None:
    assert dict(about.lines(spec, []))["commercial use"]
    assert json.loads(json.dumps(about.record(spec), default=str))["name"] == spec.name


@pytest.mark.parametrize(
    ("typed", "meant"),
    [
        ("qwen2.5-7b-instuct", "qwen2.5-7b-instruct"),
        ("Qwen/Qwen2.5-7B-Instruct-AQW", "qwen2.5-7b-instruct:awq"),
        ("deepseek r1", "deepseek-r1"),
        ("llama3.1", "llama-3.1-8b-instruct"),
    ],
)
@pytest.mark.parametrize("verb", ["show", "pull", "rm"])
def test_a_typo_gets_near_matches(inhouse: Inhouse, verb: str, typed: str, meant: str) -> None:
    ran = inhouse(verb, typed)
    assert ran.code == 3
    assert f"no such model: {typed}" in ran.err
    assert f"hint: did you mean {meant}" in ran.err


def test_the_list_in_a_pipe_has_one_line_for_a_model(inhouse: Inhouse) -> None:
    lines = inhouse("ls", "--catalog").out.splitlines()
    rows = [line.split() for line in lines[2:] if line.strip()]
    assert [row[0] for row in rows] == [spec.name for spec in ENTRIES]
    qwen = next(row for row in rows if row[0] == "qwen2.5-7b-instruct")
    assert qwen[1:] == ["7.62B", "32k–128k", "yes", ":awq", ":gptq-int4", ":gptq-int8"]
    assert any(not line.strip() for line in lines), "families stand apart"


def test_the_list_marks_what_is_here(inhouse: Inhouse, house: House) -> None:
    inhouse("pull", "tiny")
    row = next(r for r in inhouse("ls", "--catalog").out.splitlines() if r.startswith("tiny "))
    assert row.split()[-1] == "yes"


def test_a_variant_that_is_here_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    list_catalog(CATALOG.specs, {"qwen3-8b:fp8", "qwen3-4b", "qwen3-4b:awq"}, as_json=False)
    rows = {
        line.split()[0]: line.split()
        for line in capsys.readouterr().out.splitlines()
        if line.strip()
    }
    assert rows["qwen3-8b"][4:] == [":fp8", ":fp8", ":awq"]
    assert rows["qwen3-4b"][4:] == ["yes", ":awq", ":fp8", ":awq"]


@pytest.mark.parametrize("columns", [80, 120])
def test_the_list_fits_a_terminal(columns: int, home: Path) -> None:
    lines = on_a_terminal(columns, "ls", "--catalog")
    assert max(map(len, lines)) <= columns
    row = next(at for at, line in enumerate(lines) if line.startswith("qwen2.5-7b-instruct "))
    variants = ":awq :gptq-int4 :gptq-int8"
    if columns < 110:
        assert lines[row + 1].strip() == variants
    else:
        assert lines[row].endswith(variants)


@pytest.mark.parametrize("columns", [80, 120])
def test_show_fits_a_terminal(columns: int, home: Path) -> None:
    lines = on_a_terminal(columns, "show", "kimi-k2")
    assert max(map(len, lines)) <= columns
    assert "Modified MIT License" in "\n".join(lines)


def on_a_terminal(columns: int, *arguments: str) -> list[str]:
    """The lines that a command writes to a terminal of this width."""
    master, slave = pty.openpty()
    environment = os.environ | {"COLUMNS": str(columns), "TERM": "dumb"}
    ran = subprocess.Popen(
        [sys.executable, "-m", "serve", *arguments],
        stdout=slave, stderr=subprocess.DEVNULL, env=environment,
    )  # fmt: skip
    os.close(slave)
    written = b""
    while True:
        try:
            chunk = os.read(master, 65536)
        except OSError:  # the other end is gone
            break
        if not chunk:
            break
        written += chunk
    os.close(master)
    assert ran.wait(30) == 0
    return [line.rstrip() for line in written.decode().replace("\r", "").split("\n")]
