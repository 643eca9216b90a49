import subprocess
import sys
from itertools import islice

from serve.bench.workload import prompts, words


def test_the_same_seed_says_the_same_in_another_process() -> None:
    code = "from serve.bench.workload import words; print(words(50, 'a'), end='')"
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert said.stdout == words(50, "a") != words(50, "b")


def test_words_are_counted() -> None:
    assert len(words(1000, "seed").split()) == 1000


def test_unique_prompts_share_no_beginning() -> None:
    made = [prompt.text for prompt in islice(prompts(30, 8, "s"), 20)]
    assert len({text.split()[0] for text in made}) == 20
    assert len({" ".join(text.split()[2:]) for text in made}) == 20


def test_shared_prompts_share_just_their_beginning() -> None:
    first, second = islice(prompts(40, 8, "s", shared_words=30), 2)
    assert first.text.split()[:31] == second.text.split()[:31]
    assert first.text.split()[31:] != second.text.split()[31:]
    assert first.max_tokens == 8
