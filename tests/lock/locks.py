"""Locks to try things on, and how hypothesis makes them."""

from hypothesis import strategies as st

from serve.lock import Lock, LockedFile, LockedModel
from serve.lock.model import digest_of
from serve.sources import KINDS

HEX = "0123456789abcdef"
sha256s = st.binary(min_size=32, max_size=32).map(bytes.hex)
names = st.text(st.characters(exclude_categories=("C", "Z")), min_size=1, max_size=40)
parts = st.text("abcdef-_ .é", min_size=1, max_size=12).filter(lambda part: part.strip("."))
paths = st.lists(parts, min_size=1, max_size=3).map("/".join)


@st.composite
def models(draw: st.DrawFn) -> LockedModel:
    """Any model that can be locked."""
    chosen = draw(
        st.dictionaries(paths, st.tuples(st.integers(0, 2**60), sha256s), min_size=1, max_size=5)
    )
    return model(
        draw(names), {path: LockedFile(path, *facts) for path, facts in chosen.items()},
        draw(st.binary(min_size=20, max_size=20)).hex(), draw(sha256s),
    )  # fmt: skip


def model(
    name: str, files: dict[str, LockedFile], revision: str = "a" * 40, entry: str = "e" * 64
) -> LockedModel:
    """A locked model of these files."""
    inside = tuple(sorted(files.values(), key=lambda file: file.path))
    return LockedModel(
        name, KINDS[0], "org/tiny", revision, "MIT", entry, digest_of(inside), inside
    )


def lock(*names: str) -> Lock:
    """A lock of small models with these names."""
    files = {"config.json": 2, "model.safetensors": 4096}
    made = {path: LockedFile(path, size, "0" * 64) for path, size in files.items()}
    return Lock(tuple(model(name, made) for name in sorted(names)))


locks = st.lists(models(), max_size=4, unique_by=lambda one: one.name).map(
    lambda found: Lock(tuple(sorted(found, key=lambda one: one.name)))
)
