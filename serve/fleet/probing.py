"""Is a server that somebody else runs there, and what does it say of itself?"""

import re
import ssl
from dataclasses import dataclass

import httpx
import msgspec

_ANSWER_TIMEOUT_S = 5.0
# Servers that have no /health, or show it to nobody, are asked for their models.
_NO_HEALTH = (401, 403, 404, 405, 501)
_CACHE = re.compile(r"^vllm:cache_config_info\{(.*)\} ", re.MULTILINE)
_LABEL = re.compile(r'(\w+)="(\d{1,12})"')


@dataclass(frozen=True, slots=True)
class Look:
    """What was seen. `problem`: why it is not ready, None if it is. `is_silent`: it is there, but
    has not answered, as one that is very busy. Sizes in tokens, 0: not said."""

    problem: str | None = None
    is_silent: bool = False
    context_tokens: int = 0
    kv_tokens: int = 0


class _Card(msgspec.Struct):
    id: str = ""
    max_model_len: int | None = None


class _Cards(msgspec.Struct):
    data: list[_Card]


class UpstreamProbe:
    """Asks one server. `address`: as in `Replica`. Close it after use."""

    def __init__(self, address: str, key: str) -> None:
        is_socket = address.startswith("unix:")
        self._client = httpx.AsyncClient(
            base_url="http://upstream" if is_socket else address,
            transport=httpx.AsyncHTTPTransport(
                uds=address.removeprefix("unix:") if is_socket else None,
                # As a gateway does: what this machine believes, or SSL_CERT_FILE. By itself the
                # client would go by a list of its own.
                verify=ssl.create_default_context() if address.startswith("https:") else False,
            ),
            headers={"Authorization": f"Bearer {key}"} if key else {},
            timeout=_ANSWER_TIMEOUT_S,
            trust_env=False,  # HTTP_PROXY is not for us
        )

    async def look(self, model: str, is_known: bool) -> Look:
        """Is it ready? One that is not known yet is asked for its sizes, too."""
        try:
            response = await self._client.get("/health")
            if response.status_code in _NO_HEALTH:
                response = await self._client.get("/v1/models")
            if not response.is_success:
                return Look(f"it answers with status {response.status_code}")
            return Look() if is_known else await self._sizes(model)
        except httpx.ConnectError as error:
            return Look(str(error) or "nobody listens there")
        except httpx.TimeoutException:
            return Look("no answer in time", is_silent=True)
        except httpx.HTTPError as error:
            return Look(str(error) or type(error).__name__, is_silent=True)

    async def close(self) -> None:
        await self._client.aclose()

    async def _sizes(self, model: str) -> Look:
        cards = await self._client.get("/v1/models")
        metrics = await self._client.get("/metrics")
        return Look(
            context_tokens=_context(cards.content, model) if cards.is_success else 0,
            kv_tokens=_kv_tokens(metrics.text) if metrics.is_success else 0,
        )


def _context(content: bytes, model: str) -> int:
    """`max_model_len`, as vLLM shows it with its models."""
    try:
        cards = msgspec.json.decode(content, type=_Cards).data
    except msgspec.MsgspecError:
        return 0
    named = [card for card in cards if card.id == model] or cards[:1]
    return named[0].max_model_len or 0 if named else 0


def _kv_tokens(metrics: str) -> int:
    """Blocks times their size, the least of all engines behind one address."""
    engines = [dict(_LABEL.findall(labels)) for labels in _CACHE.findall(metrics)]
    sizes = [
        int(engine.get("num_gpu_blocks", 0)) * int(engine.get("block_size", 0))
        for engine in engines
    ]
    return min(sizes, default=0)
