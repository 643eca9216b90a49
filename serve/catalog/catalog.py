"""All specs, and finding one by what people call it."""

import difflib
import re
from dataclasses import dataclass, field

from serve.catalog.spec import ModelSpec
from serve.errors import UnknownModel
from serve.sources import HubSource, ModelScopeSource

NEAR_MATCHES = 3
# difflib's ratio below which two names are not alike, and what a name counts that contains another.
_ALIKE = 0.6
_CONTAINED = 0.9
_SHORTEST_PART = 3


@dataclass(frozen=True)
class Catalog:
    """The specs in the order of their files; `load_catalog` saw to it that names are unique."""

    specs: tuple[ModelSpec, ...]
    _by_label: dict[str, ModelSpec] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        labels: dict[str, ModelSpec] = {}
        for spec in self.specs:
            for label in (spec.name, *spec.aliases):
                labels[label.lower()] = spec
        # Two entries may share a repository (with other limits, say): the first one has its name.
        for spec in self.specs:
            for source in (spec.source, *spec.alternatives):
                if isinstance(source, HubSource | ModelScopeSource):
                    labels.setdefault(source.repo.lower(), spec)
        object.__setattr__(self, "_by_label", labels)

    def find(self, name: str) -> ModelSpec:
        """The spec with this name, alias or full repository id, in any case.

        Raises UnknownModel with the names of up to three specs that are called alike.
        """
        label = name.strip().lower()
        if label in self._by_label:
            return self._by_label[label]
        raise UnknownModel(name, self._near(label))

    def _near(self, label: str) -> tuple[str, ...]:
        """The names of the specs that were meant, the likeliest first; the shorter of equals."""
        matcher = difflib.SequenceMatcher(autojunk=False)
        matcher.set_seq2(label)
        scores: dict[str, float] = {}
        for known, spec in self._by_label.items():
            matcher.set_seq1(known)
            score = _CONTAINED if _is_part(label, known) else 0.0
            if matcher.real_quick_ratio() >= _ALIKE and matcher.quick_ratio() >= _ALIKE:
                score = max(score, matcher.ratio())
            if score >= _ALIKE:
                scores[spec.name] = max(score, scores.get(spec.name, 0.0))
        ranked = sorted(scores, key=lambda name: (-round(scores[name], 2), len(name)))
        return tuple(ranked[:NEAR_MATCHES])


def _is_part(label: str, known: str) -> bool:
    """Does `llama3.1` stand in `llama-3.1-8b-instruct`? What separates words does not count."""
    part, whole = (re.sub(r"[^a-z0-9]", "", text) for text in (label, known))
    return len(part) >= _SHORTEST_PART and part in whole
