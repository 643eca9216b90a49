"""Seeded prompts: the same seed gives the same text in every process and on every machine."""

import itertools
import random
from collections.abc import Iterator
from dataclasses import dataclass

# Common short words: nearly every tokenizer has each of them, with its leading blank, as one token.
_COMMON = """
    the of and to in is was for on are as with his they at be this have from or had by but what all
    were we when your can said there use an each which she do how their if will up other about out
    many then them these so some her would make like him into time has look two more write go see
    number no way could people my than first water been call who oil its now find long down day did
    get come made may part over new sound take only little work know place year live me back give
    most very after thing our just name good sentence man think say great where help through much
    before line right too mean old any same tell boy follow came want show also around form three
    small set put end does another well large must big even such because turn here why ask went men
    read need land different home us move try kind hand picture again change off play spell air away
    animal house point page letter mother answer found study still learn should world high every
"""
WORDS = tuple(_COMMON.split())


@dataclass(frozen=True, slots=True)
class Prompt:
    """One request's text and how many tokens may be answered."""

    text: str
    max_tokens: int


def words(count: int, seed: str) -> str:
    """`count` words (about as many tokens), drawn by `seed`; ends without a full stop."""
    # random.Random(str) hashes with SHA-512, not with the process's salted hash().
    return " ".join(random.Random(seed).choices(WORDS, k=count))


def prompts(count: int, max_tokens: int, seed: str, shared_words: int = 0) -> Iterator[Prompt]:
    """Endless prompts of about `count` words that begin with the same `shared_words` words.

    With 0 shared words no two have the same beginning, so no prefix cache can help.
    """
    beginning = f"{seed} {words(shared_words, seed)} " if shared_words else ""
    for number in itertools.count():
        text = words(count - shared_words, f"{seed}/{number}")
        yield Prompt(f"{beginning}{number} {seed} {text}", max_tokens)
