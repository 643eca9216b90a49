"""What the converter says; the real conversion is tested in `tests/engine`."""

import json
import stat
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from serve.shipped import shipped

# Stand-ins for what a runtime has: just enough of each library's surface.
GGUF = "GGUFReader = dict\nget_tensor_name_map = dict\n"
TORCH = "bfloat16 = 'bf16'\n"
TRANSFORMERS = """
import os
from pathlib import Path
assert os.environ["HF_HUB_OFFLINE"] == "1"
class GgufConfig:
    def __init__(self, dequantize): assert dequantize
class _Saved:
    def __init__(self, name): self.name = name
    def save_pretrained(self, target):
        {problem}
        path = Path(target, self.name)
        path.write_text("12345")
        path.chmod(0o600)
class AutoModelForCausalLM:
    @staticmethod
    def from_pretrained(pretrained_model_name_or_path, gguf_file, quantization_config, dtype):
        assert dtype == "bf16" and Path(pretrained_model_name_or_path, gguf_file).exists()
        return _Saved("model.safetensors")
class AutoTokenizer:
    @staticmethod
    def from_pretrained(pretrained_model_name_or_path, gguf_file):
        return _Saved("tokenizer.json")
"""
LOGGING = "def disable_progress_bar(): print('libraries talk too')\n"


def convert(folder: Path, *arguments: str, problem: str = "") -> tuple[int, list[dict[str, Any]]]:
    """Exit code and records of a converter whose libraries are stand-ins."""
    modules = folder / "modules"
    (modules / "transformers" / "utils").mkdir(parents=True)
    (modules / "gguf.py").write_text(GGUF)
    (modules / "torch.py").write_text(TORCH)
    body = TRANSFORMERS.replace("{problem}", problem or "pass")
    (modules / "transformers" / "__init__.py").write_text(body)
    (modules / "transformers" / "utils" / "__init__.py").write_text("")
    (modules / "transformers" / "utils" / "logging.py").write_text(LOGGING)
    done = subprocess.run(
        [sys.executable, str(shipped("inside/convert.py")), *arguments],
        env={"PYTHONPATH": str(modules)},
        capture_output=True,
        text=True,
        timeout=60,
    )
    lines = done.stdout.splitlines()
    return done.returncode, [json.loads(line) for line in lines if line.startswith("{")]


def test_a_conversion_tells_its_steps_and_its_bytes(tmp_path: Path) -> None:
    (tmp_path / "a.gguf").touch()
    target = tmp_path / "new" / "out"
    code, said = convert(tmp_path, str(tmp_path / "a.gguf"), str(target))
    assert code == 0
    assert [record["step"] for record in said[:-1]] == ["import", "weights", "write", "tokenizer"]
    assert said[-1] == {"done": 10}
    assert {file.name for file in target.iterdir()} == {"model.safetensors", "tokenizer.json"}
    assert all(stat.S_IMODE(file.stat().st_mode) == 0o644 for file in target.iterdir())


@pytest.mark.parametrize(
    ("problem", "error"),
    [
        ("raise OSError(28, 'No space left on device')", "OSError: [Errno 28] No space left"),
        ("raise ValueError('two\\nlines')", "ValueError: two lines"),
    ],
)
def test_a_failure_is_one_line_and_a_bad_exit_code(
    tmp_path: Path, problem: str, error: str
) -> None:
    (tmp_path / "a.gguf").touch()
    code, said = convert(tmp_path, str(tmp_path / "a.gguf"), str(tmp_path / "out"), problem=problem)
    assert code == 1
    assert said[-1]["error"].startswith(error)


def test_a_target_that_cannot_be_made_is_said(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    code, said = convert(tmp_path, "a.gguf", str(tmp_path / "file" / "out"))
    assert code == 1
    assert "NotADirectoryError" in said[-1]["error"]


def test_wrong_arguments_are_answered_with_the_usage(tmp_path: Path) -> None:
    code, said = convert(tmp_path, "a.gguf")
    assert code == 2
    assert said == [{"error": "usage: convert.py GGUF_FILE TARGET_DIR"}]
