"""A server that somebody else runs, as far as a probe sees it."""

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

from serve.catalog import Catalog, load_catalog
from serve.fleet import Fleet, FleetConfig
from serve.hardware import Cpu, Machine
from serve.plan import Wishes
from serve.roster import Roster, ServedModel
from serve.settings import ModelTerms
from tests.fleet.houses import store_at

METRICS = (
    'vllm:cache_config_info{block_size="128",enable_prefix_caching="True",engine="0",'
    'num_gpu_blocks="728"} 1.0\n'
    'vllm:cache_config_info{block_size="128",engine="1",num_gpu_blocks="700"} 1.0\n'
)


@dataclass
class Upstream:
    """Answers by path; `asked` holds (path, Authorization) of every request."""

    answers: dict[str, tuple[int, str]]
    asked: list[tuple[str, str]] = field(default_factory=list)

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One connection."""
        try:
            while head := await reader.readuntil(b"\r\n\r\n"):
                lines = head.decode().split("\r\n")
                fields = dict(line.lower().split(": ", 1) for line in lines[1:] if line)
                path = lines[0].split()[1]
                self.asked.append((path, fields.get("authorization", "")))
                status, text = self.answers.get(path, (404, "{}"))
                writer.write(
                    f"HTTP/1.1 {status} X\r\ncontent-length: {len(text)}\r\n\r\n{text}".encode()
                )
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()


def vllm(name: str = "their-model", context: int = 4096) -> Upstream:
    """One that shows everything."""
    cards = {"data": [{"id": "other"}, {"id": name, "max_model_len": context}]}
    return Upstream(
        {"/health": (200, ""), "/v1/models": (200, json.dumps(cards)), "/metrics": (200, METRICS)}
    )


@asynccontextmanager
async def listening(upstream: Upstream, path: Path) -> AsyncIterator[str]:
    """The URL at which it answers inside the block."""
    server = await asyncio.start_unix_server(upstream.serve, path)
    try:
        yield f"unix:{path}"
    finally:
        server.close()
        path.unlink(missing_ok=True)


@asynccontextmanager
async def front(
    home: Path, *models: ModelTerms, catalog: Catalog | None = None
) -> AsyncIterator[Fleet]:
    """A fleet that has no engines."""
    if catalog is None:
        (home / "none.yaml").write_text("models: {}\n")
        catalog = load_catalog(home / "none.yaml")
    machine = Machine(Cpu("test", (0,), ((0,),), frozenset(), 2**34, 2**33))
    config = FleetConfig(Wishes(), None, 1.0, models=models, probe_s=0.02)
    made = Fleet(config, catalog, store_at(home), None, lambda: machine)
    try:
        yield made
    finally:
        await made.close()


async def until(made: Fleet, is_so: Callable[[ServedModel], bool]) -> Roster:
    """The first roster whose only model is so."""
    async with asyncio.timeout(20):
        async for roster in made.rosters():
            if roster.models and is_so(roster.models[0]):
                return roster
    raise AssertionError("rosters never end")
