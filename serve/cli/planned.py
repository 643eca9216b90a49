"""What `inhouse plan` is asked about: a catalog entry, a repository, a folder or a config.json."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from serve.catalog import Catalog, ModelSpec
from serve.cli import output, rooms
from serve.errors import BadFile, InhouseError, NotPulled, SettingsError, WeightsDamaged
from serve.geometry import read_geometry
from serve.plan import Wishes
from serve.settings import Settings
from serve.shape import Geometry
from serve.sources import DirSource, HubSource
from serve.store import Store

_MOST_CONFIG_BYTES = 2**20


@dataclass(frozen=True, slots=True)
class Planned:
    """`digest`: of the weights, where they are here; a launch of them may have been measured."""

    name: str
    geometry: Geometry
    digest: str = ""
    spec: ModelSpec | None = None


class Finder:
    """Finds geometries: from weights that are here, from the catalog, from the Hub."""

    def __init__(self, settings: Settings, wishes: Wishes, is_exact: bool = False) -> None:
        self._catalog: Catalog = rooms.catalog(settings)
        self._store: Store = rooms.store(settings)
        self._wishes, self._is_exact = wishes, is_exact

    def find(self, text: str, variant: str | None = None) -> Planned:
        """What is meant by a name or a path. UnknownModel, BadFile; what the Hub raises."""
        path = Path(text).expanduser()
        if text.endswith(".json") or text.startswith((".", "/", "~")) or path.is_dir():
            return self._at(path)
        if variant is not None:
            text = self._named(text, variant)
        try:
            spec = self._catalog.find(text)
        except InhouseError:
            if text.count("/") != 1:
                raise
            return self._looked(_stranger(text))
        return self.of(spec)

    def of(self, spec: ModelSpec) -> Planned:
        """A catalog entry: exact if its weights are here, else by its known shape."""
        return self.known(spec, not self._is_exact) or self._looked(spec)

    def known(self, spec: ModelSpec, is_shape_enough: bool = True) -> Planned | None:
        """The same without network; None if nothing is known of it here."""
        try:
            weights = self._store.weights(spec)
        except (NotPulled, WeightsDamaged):
            shape = spec.shape if is_shape_enough else None
            return Planned(spec.name, self._read(shape), "", spec) if shape else None
        config, tensors = self._store.config(weights), self._store.tensors(weights)
        return Planned(spec.name, self._read(config, tensors=tensors), weights.digest, spec)

    def variants(self, spec: ModelSpec) -> tuple[Planned, ...]:
        """The same model in the other number formats whose shape is known."""
        others = [each for each in self._catalog.specs if each.variant_of == spec.name]
        return tuple(
            Planned(each.name, self._read(shape), "", each)
            for each in others
            if (shape := each.shape) is not None
        )

    def recommended(self) -> list[ModelSpec]:
        """What `serve auto` may take, the best first, each followed by its variants."""
        ranked = [each for each in self._catalog.specs if each.facts.recommended is not None]
        return sorted(ranked, key=lambda each: each.facts.recommended or 0)

    def _named(self, text: str, variant: str) -> str:
        base = self._catalog.find(text)
        name = f"{base.variant_of or base.name}:{variant}"
        known = [each.name for each in self._catalog.specs if each.variant_of == base.name]
        if name not in known:
            there = ", ".join(each.partition(":")[2] for each in known) or "none"
            raise SettingsError(
                "flag", "--variant", f"{base.name} has no {variant}; it has: {there}"
            )
        return name

    def _at(self, path: Path) -> Planned:
        config = path / "config.json" if path.is_dir() else path
        name = config.parent.name if config.name == "config.json" else config.stem
        if path.is_dir() and any(path.glob("*.safetensors")):
            return self._looked(_stranger(str(path.absolute()), name))
        return Planned(name or str(path), self._read(_read_config(config), str(config)))

    def _looked(self, spec: ModelSpec) -> Planned:
        if isinstance(spec.source, HubSource):
            output.say(f"reading the headers of {spec.origin} on the Hub", "dim")
        seen = self._store.look(spec)
        geometry = read_geometry(
            seen.config, seen.tensors, seen.is_sample, seen.checkpoint_bytes,
            self._wishes.dtype, self._wishes.quantization,
        )  # fmt: skip
        return Planned(spec.name, geometry, "", spec if spec in self._catalog.specs else None)

    def _read(self, config: Mapping[str, Any], place: str = "", **more: Any) -> Geometry:
        try:
            return read_geometry(
                config, dtype=self._wishes.dtype, quantization=self._wishes.quantization, **more
            )
        except BadFile as error:
            raise BadFile(place or error.path, error.problem) from error


def _stranger(place: str, name: str | None = None) -> ModelSpec:
    source = DirSource(Path(place)) if place.startswith("/") else HubSource(place)
    return ModelSpec.stranger(name or place, source)


def _read_config(path: Path) -> dict[str, Any]:
    try:
        if path.stat().st_size > _MOST_CONFIG_BYTES:
            raise BadFile(str(path), "is too large for a config.json")
        content = json.loads(path.read_bytes())
    except OSError as error:
        raise BadFile(str(path), error.strerror or str(error)) from error
    except (ValueError, RecursionError) as error:
        raise BadFile(str(path), f"is not JSON: {error}") from error
    if not isinstance(content, dict):
        raise BadFile(str(path), "is not a JSON object")
    return content
