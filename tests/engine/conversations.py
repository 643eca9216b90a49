"""Many users who talk for many turns, and how much of their prompts was cached."""

import asyncio
import random
from dataclasses import dataclass

import httpx

_TEXT = """river stone light paper window garden morning table letter music winter summer road
bread silver engine carpet mountain village doctor pencil forest island market orange tower"""
_WORDS = _TEXT.split()


@dataclass(frozen=True, slots=True)
class Talks:
    """So many conversations of so many turns, by `users` at the same time. Each begins with the
    system prompt and a text of `first_words`."""

    conversations: int
    turns: int
    users: int
    system_words: int = 60
    first_words: int = 120
    question_words: int = 30
    answer_tokens: int = 8


@dataclass(slots=True)
class Told:
    """Sums over all answers, as the engines tell them."""

    requests: int = 0
    prompt_tokens: int = 0
    cached_tokens: int = 0

    @property
    def cached_share(self) -> float:
        return self.cached_tokens / max(self.prompt_tokens, 1)


async def talk(client: httpx.AsyncClient, model: str, talks: Talks, seed: int) -> Told:
    """Have all conversations. Users take turns: of those that wait any may be next, so which
    replica's turn it is has nothing to do with who asks."""
    rng, told = random.Random(seed), Told()
    system = _words(rng, talks.system_words)
    waiting = [_Talk(system, _words(rng, talks.first_words)) for _ in range(talks.conversations)]
    active = [waiting.pop() for _ in range(min(talks.users, len(waiting)))]
    free = asyncio.Semaphore(_AT_ONCE)
    running: set[asyncio.Task[None]] = set()

    async def turn(one: _Talk, question: str) -> None:
        try:
            await one.ask(client, model, question, talks.answer_tokens, told)
        finally:
            free.release()
        if one.turns < talks.turns:
            active.append(one)
        elif waiting:
            active.append(waiting.pop())

    while active or running or waiting:
        await free.acquire()
        if not active:
            free.release()
            done, _ = await asyncio.wait(running, return_when=asyncio.FIRST_COMPLETED)
            running -= done
            for task in done:
                task.result()
            continue
        one = active.pop(rng.randrange(len(active)))
        question = _words(rng, talks.question_words)
        running.add(asyncio.create_task(turn(one, question)))
    return told


_AT_ONCE = 6


class _Talk:
    def __init__(self, system: str, first: str) -> None:
        self.turns = 0
        self._first = first
        self._messages = [{"role": "system", "content": system}]

    async def ask(
        self, client: httpx.AsyncClient, model: str, question: str, most: int, told: Told
    ) -> None:
        content = f"{self._first} {question}" if self.turns == 0 else question
        self._messages.append({"role": "user", "content": content})
        self.turns += 1
        body = {
            "model": model, "messages": self._messages, "max_tokens": most, "temperature": 0,
            "ignore_eos": True,
        }  # fmt: skip
        reply = await client.post("/v1/chat/completions", json=body)
        assert reply.status_code == 200, reply.text
        record = reply.json()
        answer = record["choices"][0]["message"]["content"]
        self._messages.append({"role": "assistant", "content": answer})
        told.requests += 1
        told.prompt_tokens += record["usage"]["prompt_tokens"]
        details = record["usage"].get("prompt_tokens_details") or {}
        told.cached_tokens += details.get("cached_tokens") or 0


def _words(rng: random.Random, count: int) -> str:
    return " ".join(rng.choices(_WORDS, k=count))
