"""A launch of the real vLLM is measured, and the next plan says what that engine logged."""

import re
from collections.abc import Callable
from pathlib import Path
from typing import NoReturn

import pytest

from serve.catalog import load_catalog
from serve.engine import EnginePool
from serve.engine.runtime import Runtime
from serve.fleet import Fleet, FleetConfig, ModelStatus
from serve.geometry import read_geometry
from serve.hardware import read_machine
from serve.plan import Plan, Subject, Wishes, make_plan
from serve.profiles import Profile, ProfileBook, ProfileKey
from serve.store import Access, Store
from tests.engine.pools import Turns
from tests.engine.stack import STARTER

pytestmark = [pytest.mark.engine, pytest.mark.timeout(240)]
WISHES = Wishes(device="cpu", context_tokens=1000, concurrency=3, max_num_seqs=16)

# Where the engine writes what is read (serve/engine/measured.py), as its source has it.
SAYINGS = (
    ("v1/worker/gpu_model_runner.py", '"Model loading took %s GiB memory'),
    ("v1/worker/gpu_model_runner.py", '"Estimated CUDA graph memory: %.2f GiB total"'),
    ("v1/worker/gpu_model_runner.py", '"Graph capturing finished in %.0f secs, took %.2f GiB"'),
    ("v1/worker/gpu/model_runner.py", '"Model loading took %s GiB memory'),
    ("v1/worker/gpu/model_runner.py", '"Graph capturing finished in %.0f secs, took %.2f GiB"'),
    ("v1/worker/gpu_worker.py", '"Available KV cache memory: %s GiB"'),
    ("v1/worker/gpu_worker.py", '"CUDA graph pool memory: %s GiB (actual), %s GiB (estimated), "'),
    ("v1/worker/gpu_worker.py", 'f"Desired GPU memory utilization is "'),
    ("v1/worker/gpu_worker.py", 'f"Actual usage is {format_gib(self.total_consumed)} "'),
    ("v1/worker/gpu_worker.py", 'f"GiB for consumed memory (weights + non-torch), "'),
    ("v1/worker/gpu_worker.py", 'f"into requested memory, or `--kv-cache-memory="'),
    ("v1/worker/gpu_worker.py", "Current kv cache memory in use is "),
    ("v1/worker/cpu_worker.py", 'f"Auto set ({format_gib(kv_cache_size)}/"'),
    ("v1/worker/cpu_worker.py", 'f" memory was consumed by non-kv usages."'),
    ("v1/core/kv_cache_utils.py", '"%s KV cache size: %s tokens, "'),
    ("v1/core/kv_cache_utils.py", '"Maximum concurrency for %s tokens per request: %.2fx"'),
    ("v1/core/kv_cache_utils.py", 'which is larger than the available KV cache "'),
    ("v1/metrics/loggers.py", '"vllm:cache_config_info"'),
)


def test_the_next_plan_says_what_the_engine_logged(
    home: Path, turns: Turns, tmp_path: Path
) -> None:
    book = ProfileBook(tmp_path / "profiles")
    status = turns.loop.run(_launched(home, next(turns).pool, book))
    assert status.log_path is not None
    log = Path(status.log_path).read_text()
    (tokens,) = re.findall(r"CPU KV cache size: ([\d,]+) tokens", log)
    ((context, times),) = re.findall(r"concurrency for ([\d,]+) tokens per request: (.+)x", log)
    logged = int(tokens.replace(",", ""))

    (profile,) = book.all()
    assert (profile.outcome, profile.kv_tokens) == ("ready", logged)
    assert profile.kv_blocks is not None and profile.block_tokens == 128
    assert profile.ready_after_s == status.ready_after_s
    assert (profile.key.max_num_seqs, profile.key.engine_version) == (16, "0.32")

    plan = _next_plan(home, book)
    # On a CPU the size of the cache is always told, so that no term is measured; the key is.
    told = plan.subject.spec.engine_args
    assert plan.key is not None and plan.key.told((), told) == profile.key and plan.is_kv_fixed
    assert (plan.kv_tokens, plan.context_tokens) == (logged, int(context.replace(",", "")))
    assert status.kv_tokens == logged
    assert f"{plan.max_concurrency:.2f}" == times and plan.max_concurrency >= 3


@pytest.mark.parametrize(
    ("file", "saying"), SAYINGS, ids=[f"{number}" for number in range(len(SAYINGS))]
)
def test_the_engine_still_says_it_so(runtime: Runtime, file: str, saying: str) -> None:
    (package,) = runtime.python.parent.parent.glob("lib/python3.*/site-packages/vllm")
    assert saying in (package / file).read_text()


async def _launched(home: Path, pool: EnginePool, book: ProfileBook) -> ModelStatus:
    config = FleetConfig(WISHES, None, 1.0, book)
    fleet = Fleet(config, load_catalog(), _store(home), pool, read_machine)
    try:
        return await fleet.load(STARTER)
    finally:
        await fleet.close()


def _next_plan(home: Path, book: ProfileBook) -> Plan:
    store, spec = _store(home), load_catalog().find(STARTER)
    weights = store.ready(spec)
    geometry = read_geometry(store.config(weights), store.tensors(weights))
    subject = Subject(spec, weights.view, weights.digest, weights.total_bytes)
    return make_plan(subject, geometry, read_machine(), WISHES, _finder(book, subject))


def _finder(book: ProfileBook, subject: Subject) -> Callable[[ProfileKey], Profile | None]:
    return lambda key: book.find(key.told((), subject.spec.engine_args))


def _store(home: Path) -> Store:
    return Store(home, Access("http://unused", None, home / "hf", _unused, _unused))


def _unused(*_: object) -> NoReturn:
    raise AssertionError("nothing is fetched here")
