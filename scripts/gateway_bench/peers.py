"""The peers: which versions, each in a virtual environment of its own, and how they are started."""

import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

from gateway_bench.native import ToolFailed

# soundfile's own newest comes without its library for some systems, and LiteLLM imports it.
PINS: Mapping[str, tuple[str, ...]] = {
    "litellm": ("litellm[proxy]==1.106.2", "soundfile==0.13.1"),
    "vllm-router": ("vllm-router==0.1.17",),
    "libraries": (
        "granian==2.8.7", "uvicorn==0.54.0", "uvloop==0.23.0", "httptools==0.9.0",
        "h11==0.16.0", "aiohttp==3.14.5", "httpx==0.28.1",
    ),
}  # fmt: skip
LITELLM_KEY = "sk-bench"
_LITELLM_CONFIG = """\
model_list:
  - model_name: bench
    litellm_params:
      model: openai/bench
      api_base: {upstream}/v1
      api_key: none
general_settings:
  master_key: {key}
"""


def default_cache() -> Path:
    home = os.environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")
    return Path(home, "inhouse", "bench-gateway")


def environment(cache: Path, name: str) -> Path:
    """The folder of programs of a peer's environment, made if it is not there. ToolFailed."""
    folder = cache / name
    wanted = "\n".join(PINS[name])
    mark = folder / "pins.txt"
    if not mark.exists() or mark.read_text() != wanted:
        print(f"installing {', '.join(PINS[name])}", file=sys.stderr, flush=True)
        _uv("venv", "--quiet", "--clear", "--python", sys.executable, str(folder))
        _uv("pip", "install", "--quiet", "--python", str(folder / "bin" / "python"), *PINS[name])
        mark.write_text(wanted)
    return folder / "bin"


def _uv(*words: str) -> None:
    done = subprocess.run([sys.executable, "-m", "uv", *words], capture_output=True, text=True)
    if done.returncode:
        raise ToolFailed(f"uv {words[0]}: {done.stderr.strip()[-400:]}")


def litellm(programs: Path, folder: Path, port: int, upstream: str) -> list[str]:
    """Its proxy with one worker and a master key, without a database, which would slow it down."""
    config = folder / "litellm.yaml"
    config.write_text(_LITELLM_CONFIG.format(upstream=upstream, key=LITELLM_KEY))
    argv = [str(programs / "litellm"), "--config", str(config), "--host", "127.0.0.1"]
    return [*argv, "--port", str(port), "--num_workers", "1", "--telemetry", "False"]


def vllm_router(programs: Path, port: int, metrics_port: int, upstream: str) -> list[str]:
    """Round robin without keys: the least that it can do, so the most that it can carry."""
    argv = [str(programs / "vllm-router"), "--host", "127.0.0.1", "--port", str(port)]
    argv += ["--worker-urls", upstream, "--policy", "round_robin", "--log-level", "warning"]
    argv += ["--prometheus-port", str(metrics_port), "--prometheus-host", "127.0.0.1"]
    return [*argv, "--max-concurrent-requests", "20000", "--queue-size", "20000"]


def quiet_environment(programs: Path) -> dict[str, str]:
    """Ours, without what speaks to others or to Python; no look-ups outside of the machine."""
    own = {"PATH": f"{programs}:{os.environ['PATH']}", "LITELLM_LOCAL_MODEL_COST_MAP": "True"}
    own |= {"LITELLM_LOG": "ERROR", "VIRTUAL_ENV": str(programs.parent)}
    return {k: v for k, v in os.environ.items() if not k.startswith("PYTHON")} | own
