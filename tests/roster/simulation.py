"""Multi-turn traffic over engines that are no more than a prefix cache: what a choice is worth."""

import random
from collections import Counter, OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field, replace

from serve.roster import Chooser, Replica, ServedModel
from serve.roster.choice import Lease
from serve.roster.roster import Routing

BLOCK_BYTES = 64  # an engine's block of 16 tokens
BYTES_PER_TOKEN = 4
TEXT = random.Random(0).randbytes(1 << 19).hex().encode()


@dataclass(frozen=True, slots=True)
class Traffic:
    """So many conversations, `active` of them at a time, `at_once` requests at the same moment.

    `first_bytes`: a document that the first question of each is about. `share`: what part of all
    conversations the caches of all replicas hold together.
    """

    replicas: int = 2
    conversations: int = 100
    turns: int = 8
    active: int = 33
    at_once: int = 8
    system_bytes: int = 2048
    first_bytes: int = 0
    question_bytes: tuple[int, int] = (100, 900)
    answer_bytes: tuple[int, int] = (200, 1600)
    share: float = 1 / 3

    @property
    def kv_tokens(self) -> int:
        """Of each replica's cache."""
        turn_bytes = (sum(self.question_bytes) + sum(self.answer_bytes)) / 2
        talk_bytes = self.first_bytes + self.turns * turn_bytes
        all_bytes = self.system_bytes + self.conversations * talk_bytes
        return int(all_bytes * self.share / BYTES_PER_TOKEN / self.replicas)

    def on_one(self) -> "Traffic":
        """The same with one replica that has all the cache."""
        return replace(self, replicas=1)


@dataclass(slots=True)
class Outcome:
    """What came of it. `overload`: picks above the bound though somebody had less to do."""

    prompt_tokens: int = 0
    cached_tokens: int = 0
    overload: int = 0
    picks: Counter[str] = field(default_factory=Counter)
    left_running: int = 0
    index_entries: int = 0
    longest_prompt: int = 0

    @property
    def cached_share(self) -> float:
        return self.cached_tokens / self.prompt_tokens


class Engine:
    """A cache of blocks, the one used longest ago goes first; of one request the last goes first,
    as in vLLM. A block is named by its conversation and place, or by its place in the system
    prompt."""

    def __init__(self, kv_tokens: int) -> None:
        self._most = kv_tokens * BYTES_PER_TOKEN // BLOCK_BYTES
        self._blocks: OrderedDict[int, None] = OrderedDict()

    def use(self, names: list[int]) -> int:
        """How many of these, from the first on, were there; now all are."""
        blocks = self._blocks
        cached = 0
        for name in names:
            if name not in blocks:
                break
            cached += 1
        for name in reversed(names):
            blocks[name] = None
            blocks.move_to_end(name)
        while len(blocks) > self._most:
            blocks.popitem(last=False)
        return cached


class Conversation:
    """One user's. Its text is a slice of `TEXT`, after the system prompt."""

    def __init__(self, number: int, traffic: Traffic, rng: random.Random) -> None:
        self._number = number
        self._system = traffic.system_bytes
        self._start = rng.randrange(len(TEXT) // 2, len(TEXT) - (1 << 17))
        self._size = traffic.first_bytes
        self.turns_left = traffic.turns

    def say(self, n_bytes: int) -> None:
        self._size += n_bytes

    @property
    def size(self) -> int:
        return self._system + self._size

    def prompt(self) -> bytes:
        """The value of `messages`; its last byte is the bracket that closes it."""
        number = b"%08d" % self._number
        said = TEXT[self._start : self._start + self._size]
        return TEXT[: self._system] + number + said + b"]"

    def blocks(self) -> list[int]:
        common = self._system // BLOCK_BYTES
        own = range(common, self.size // BLOCK_BYTES)
        base = (self._number + 1) << 20
        return [*range(common), *(base + place for place in own)]


@dataclass(slots=True)
class _Running:
    conversation: Conversation
    lease: Lease
    engine: Engine
    prompt_tokens: int
    cached_tokens: int


def simulate(
    traffic: Traffic, routing: Routing, seed: int, engine: Callable[[int], Engine] = Engine
) -> Outcome:
    """One run: the same seed gives the same conversations, whatever the routing and the engines.
    `engine`: makes one of so many tokens."""
    rng = random.Random(seed)
    kv_tokens = traffic.kv_tokens
    replicas = tuple(Replica(f"m-{n}", f"unix:/{n}", kv_tokens) for n in range(traffic.replicas))
    model = ServedModel("m", (), "ready", 1 << 20, 0, replicas, routing=routing)
    engines = {replica.id: engine(kv_tokens) for replica in replicas}
    chooser, outcome = Chooser(), Outcome()
    waiting = [Conversation(n, traffic, rng) for n in range(traffic.conversations)]
    idle: list[Conversation] = []
    running: list[_Running] = []
    while waiting or idle or running:
        while waiting and len(idle) + len(running) < traffic.active:
            idle.append(waiting.pop())
        if idle and len(running) < traffic.at_once and (not running or rng.random() < 0.6):
            asks = idle.pop(rng.randrange(len(idle)))
            asks.say(rng.randint(*traffic.question_bytes))
            running.append(_begin(asks, model, chooser, engines, outcome))
        else:
            done = running.pop(rng.randrange(len(running)))
            _end(done, rng.randint(*traffic.answer_bytes), outcome)
            if done.conversation.turns_left:
                idle.append(done.conversation)
    outcome.left_running = sum(chooser.running.values())
    outcome.index_entries = chooser.blocks
    return outcome


def _begin(
    asks: Conversation,
    model: ServedModel,
    chooser: Chooser,
    engines: dict[str, Engine],
    outcome: Outcome,
) -> _Running:
    prompt = asks.prompt()
    outcome.longest_prompt = max(outcome.longest_prompt, len(prompt))
    running = chooser.running
    before = [running[replica.id] for replica in model.replicas]
    lease = chooser.pick(model, prompt, b"")
    assert lease is not None
    mine = running[lease.replica.id] + 1
    if mine > (sum(before) + 1) * 1.25 / len(before) + 2 and mine - 1 > min(before):
        outcome.overload += 1
    outcome.picks[lease.replica.id] += 1
    engine = engines[lease.replica.id]
    cached = engine.use(asks.blocks()) * BLOCK_BYTES // BYTES_PER_TOKEN
    return _Running(asks, lease, engine, asks.size // BYTES_PER_TOKEN, cached)


def _end(done: _Running, answer_bytes: int, outcome: Outcome) -> None:
    conversation = done.conversation
    outcome.prompt_tokens += done.prompt_tokens
    outcome.cached_tokens += done.cached_tokens
    done.lease.end(done.prompt_tokens, done.cached_tokens)
    conversation.say(answer_bytes)
    conversation.turns_left -= 1
    done.engine.use(conversation.blocks())
