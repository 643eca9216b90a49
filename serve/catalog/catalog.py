"""All specs, and finding one by what people call it."""

import difflib
from dataclasses import dataclass, field

from serve.catalog.spec import ModelSpec
from serve.errors import UnknownModel
from serve.sources import HubSource

NEAR_MATCHES = 3


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
            if isinstance(spec.source, HubSource):
                labels.setdefault(spec.source.repo.lower(), spec)
        object.__setattr__(self, "_by_label", labels)

    def find(self, name: str) -> ModelSpec:
        """The spec with this name, alias or full repository id, in any case.

        Raises UnknownModel with the names of up to three specs that are called alike.
        """
        label = name.strip().lower()
        if label in self._by_label:
            return self._by_label[label]
        near = difflib.get_close_matches(label, self._by_label, n=4 * NEAR_MATCHES)
        names = dict.fromkeys(self._by_label[match].name for match in near)
        raise UnknownModel(name, tuple(names)[:NEAR_MATCHES])
