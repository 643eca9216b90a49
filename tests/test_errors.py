import copy
import json
import pickle
from dataclasses import fields
from typing import Any

import pytest

from serve import errors
from serve.errors import ControlLost, InhouseError, UnknownModel, leaves
from serve.wire import from_wire, to_wire

SAMPLES: dict[str, Any] = {
    "str": "a word: “é”\n",
    "str | None": None,
    "int": 7,
    "int | None": None,
    "float": 1.5,
    "bool": True,
    "tuple[str, ...]": ("one", "two"),
    "tuple[tuple[str, int], ...]": (("weights", 3), ("KV cache", 4)),
    "tuple[tuple[str, str], ...]": (("a", "b"), ("c", "d")),
}


def sample(kind: type[InhouseError]) -> InhouseError:
    """One error of this kind with every fact given."""
    return kind(**{field.name: SAMPLES[shown(field.type)] for field in fields(kind)})


def shown(annotation: Any) -> str:
    return (
        annotation.__name__
        if isinstance(annotation, type) and not hasattr(annotation, "__args__")
        else str(annotation)
    )


def facts(error: InhouseError) -> dict[str, Any]:
    return {field.name: getattr(error, field.name) for field in fields(error)}


@pytest.mark.parametrize("kind", leaves())
def test_every_error_crosses_the_wire_unchanged(kind: type[InhouseError]) -> None:
    error = sample(kind)
    back = from_wire(json.loads(json.dumps(to_wire(error))))
    assert type(back) is kind
    assert facts(back) == facts(error)


@pytest.mark.parametrize("kind", leaves())
def test_every_error_can_be_copied_pickled_and_raised(kind: type[InhouseError]) -> None:
    error = sample(kind)
    for twin in (copy.copy(error), pickle.loads(pickle.dumps(error))):
        assert type(twin) is kind
        assert facts(twin) == facts(error)
    with pytest.raises(kind):
        raise error


@pytest.mark.parametrize("kind", leaves())
def test_every_error_says_its_facts(kind: type[InhouseError]) -> None:
    text = str(sample(kind))
    assert text.startswith(kind.__name__ + "(")
    assert all(f"{field.name}=" in text for field in fields(kind))


@pytest.mark.parametrize("kind", leaves())
def test_every_error_is_in_the_drawn_tree_once(kind: type[InhouseError]) -> None:
    drawn = (errors.__doc__ or "").replace("·", " ").split()
    assert drawn.count(kind.__name__) == 1


def test_the_drawn_tree_holds_nothing_else() -> None:
    tree = (errors.__doc__ or "").split("\n\n")[1]
    names = {word for word in tree.split() if word.isidentifier()}
    branches = {branch.__name__ for leaf in leaves() for branch in leaf.__mro__} - {
        "Exception", "BaseException", "object",
    }  # fmt: skip
    assert names == branches


@pytest.mark.parametrize(
    "record",
    [
        {},
        {"error": "NoSuchError", "facts": {}},
        {"error": "StoreError", "facts": {}},
        {"error": "UnknownModel"},
        {"error": "UnknownModel", "facts": {}},
        {"error": "UnknownModel", "facts": {"name": "x", "colour": "red"}},
        {"error": "UnknownModel", "facts": ["x"]},
        {"error": ["UnknownModel"], "facts": {}},
        {"detail": "Not Found"},
    ],
)
def test_a_record_that_is_no_error_of_ours_is_said_so(record: dict[str, Any]) -> None:
    back = from_wire(record)
    assert isinstance(back, ControlLost)
    assert "not understood" in back.reason


def test_errors_are_compared_by_identity() -> None:
    assert UnknownModel("a") != UnknownModel("a")
    assert len({UnknownModel("a"), UnknownModel("a")}) == 2
