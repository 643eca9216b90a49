"""Names of others: none leads out of a folder, none is taken for another."""

import re
import unicodedata
from pathlib import Path, PurePosixPath

import pytest
from hypothesis import given
from hypothesis import strategies as st

from serve.errors import RepoNotFound, SourceUnreachable, UnsafeWeights, WeightsDamaged
from serve.sources import DirSource
from serve.store.content import is_loadable, small_files, weight_files
from serve.store.paths import check_inside, check_names, is_safe_path, link_home, shown
from tests.store.models import model_files, spec, store_at

LEADING_OUT = [
    "../config.json", "a/../../config.json", "/etc/config.json", "..\\config.json",
    "\\config.json", "a\\..\\config.json", "~/config.json", "config\n.json", "config\0.json",
    "\x1b[2Jconfig.json", "..", "a/..",
]  # fmt: skip
UNSAFE = [
    *LEADING_OUT, "", ".", ".hidden", "a/.hidden", "a//b", "a/", "./a", "C:\\a", "a\\b", "a:b",
    "naïve.json", "config.json\u200b", "ｃonfig.json", "x" * 201, "a/" + "x" * 201, "a/" * 160,
]  # fmt: skip


@pytest.mark.parametrize("path", UNSAFE)
def test_names_that_are_not_written_to_disk(path: str) -> None:
    assert not is_safe_path(path)


@pytest.mark.parametrize(
    "path", ["config.json", "model-00001-of-00163.safetensors", "1_Pooling/config.json",
             "a b+c.model", "x" * 200]
)  # fmt: skip
def test_names_that_are(path: str) -> None:
    assert is_safe_path(path)


@given(st.text(max_size=40))
def test_a_safe_name_stays_inside_whatever_it_is(path: str) -> None:
    if is_safe_path(path):
        parts = PurePosixPath("/folder", path).parts
        assert parts[:2] == ("/", "folder") and ".." not in parts
        assert path.isascii() and path.isprintable() and "\\" not in path


@pytest.mark.parametrize("path", LEADING_OUT)
def test_a_list_with_a_name_that_leads_out_is_refused_whole(path: str) -> None:
    files = ["config.json", "model.safetensors", path]
    with pytest.raises(UnsafeWeights) as caught:
        small_files(files)
    assert caught.value.file.isprintable()
    with pytest.raises(UnsafeWeights):
        weight_files(files, None)


@pytest.mark.parametrize(
    ("path", "twin"),
    [
        ("model.safetensors", "Model.safetensors"),
        ("config.json", "CONFIG.JSON"),
        ("config.json", "ｃonfig.json"),
        ("tokenizer.json", "to\u212aenizer.json"),
        ("config.json", unicodedata.normalize("NFD", "cönfig.json").replace("o\u0308", "O")),
    ],
)
def test_twins_are_refused(path: str, twin: str) -> None:
    with pytest.raises(UnsafeWeights, match=re.escape("only by case or encoding")):
        check_names([path], [path, twin])


def test_twins_of_what_nobody_takes_do_not_matter() -> None:
    files = ["config.json", "model.safetensors", "README.md", "readme.md", ".gitattributes",
             "bild\u00e9.png", "bilde\u0301.png"]  # fmt: skip
    assert small_files(files) == ["config.json"]
    assert weight_files(files, None) == ["model.safetensors"]


@pytest.mark.parametrize("name", ["é.safetensors", " x.safetensors", "x" * 300 + ".safetensors"])
def test_weights_with_a_name_that_is_not_written_are_refused(name: str) -> None:
    with pytest.raises(UnsafeWeights) as caught:
        weight_files([name], None)
    assert len(caught.value.file) <= 300
    with pytest.raises(UnsafeWeights):
        weight_files([name], {"weight_map": {"w": name}})


TAKEN = [
    "config.json", "generation_config.json", "preprocessor_config.json", "tokenizer.json",
    "tokenizer_config.json", "special_tokens_map.json", "vocab.json", "merges.txt",
    "tokenizer.model", "tiktoken.model", "qwen.tiktoken", "chat_template.jinja",
    "chat_template.json", "model.safetensors.index.json", "hf_quant_config.json",
    "additional_chat_templates/tool_use.jinja", "1_Pooling/config.json",
]  # fmt: skip
LEFT = [
    "README.md", "LICENSE", "pytorch_model.bin", "model.pt", "model.pth", "model.ckpt", "x.pkl",
    "model.gguf", "model.onnx", "modeling_x.py", "setup.sh", "original/params.json",
    "consolidated.00.pth", "tokenizer.json.exe", "figures/chart.json", "trainer_state.json",
    "training_args.bin", "a/b/config.json", "config.json/x", "sitecustomize.pth", "x.so",
]  # fmt: skip


def test_what_is_taken_and_what_is_left() -> None:
    assert small_files([*LEFT, *TAKEN]) == sorted(TAKEN)
    assert all(is_loadable(path, code=False) for path in [*TAKEN, "model.safetensors"])
    assert not any(is_loadable(path, code=False) for path in LEFT)


def test_python_is_taken_only_where_it_is_approved_and_only_beside_the_weights() -> None:
    files = ["config.json", "modeling_x.py", "__init__.py", "tools/run.py", ".hidden.py"]
    assert small_files(files) == ["config.json"]
    assert small_files(files, code=True) == ["__init__.py", "config.json", "modeling_x.py"]


def test_where_links_may_lead(tmp_path: Path) -> None:
    snapshot = tmp_path / "models--a--b" / "snapshots" / ("0" * 40)
    blobs = tmp_path / "models--a--b" / "blobs"
    snapshot.mkdir(parents=True)
    blobs.mkdir()
    assert link_home(snapshot) == tmp_path / "models--a--b"
    assert link_home(tmp_path) == tmp_path
    (blobs / "abc").write_text("x")
    (snapshot / "in").symlink_to("../../blobs/abc")
    (tmp_path / "models--a--bad").mkdir()
    (snapshot / "out").symlink_to("../../../models--a--bad")
    home = link_home(snapshot)
    assert check_inside(snapshot, "in", home) == blobs / "abc"
    with pytest.raises(UnsafeWeights):
        check_inside(snapshot, "out", home)


def test_a_loop_of_links_is_a_file_that_is_missing(tmp_path: Path) -> None:
    root = tmp_path / "mine"
    root.mkdir()
    for name, data in model_files().items():
        if "/" not in name:
            (root / name).write_bytes(data)
    store = store_at(tmp_path)
    store.ready(spec(DirSource(root)))
    (root / "config.json").unlink()
    (root / "config.json").symlink_to("config.json")
    with pytest.raises(WeightsDamaged) as caught:
        store.ready(spec(DirSource(root)))
    assert caught.value.file == "config.json"
    with pytest.raises(SourceUnreachable):
        store.pull(spec(DirSource(root)))
    (tmp_path / "round").symlink_to("round")
    with pytest.raises(RepoNotFound):
        store.pull(spec(DirSource(tmp_path / "round"), "other"))


def test_names_are_shown_without_harm() -> None:
    assert shown("config.json") == "config.json"
    assert shown("\x1b[2J\n") == "\\x1b[2J\\n"
    assert len(shown("x" * 10_000)) < 120
