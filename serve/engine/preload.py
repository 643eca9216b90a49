"""What makes an engine on a CPU fast before its first line runs: libraries and their tuning."""

from pathlib import Path

from serve.engine.runtime import Runtime

# Debian's and Fedora's places; the full library works as well as the minimal one.
_SYSTEM_FOLDERS = ("/usr/lib/x86_64-linux-gnu", "/usr/lib64", "/usr/lib")
_ALLOCATORS = ("libtcmalloc_minimal.so.4", "libtcmalloc.so.4")
_OPENMP = "libiomp5.so"

# Where there is no tcmalloc: glibc keeps the memory of activations instead of giving it back to
# the kernel after every step. Measured (SmolLM2-135M compiled, 2 cores): 42 against 38 tokens/s,
# with 16 streams 524 against 400; tcmalloc 49 and 440. Other allocators do not read these.
GLIBC_TUNING = {
    "MALLOC_MMAP_MAX_": "0",
    "MALLOC_TRIM_THRESHOLD_": str(64 * 2**30),
    "MALLOC_TOP_PAD_": str(64 * 2**20),
}


def preloads(runtime: Runtime) -> tuple[Path, ...]:
    """What is there of tcmalloc and an OpenMP, in the order for LD_PRELOAD.

    Never two OpenMPs: vLLM refuses that. Without any, threads that are bound share one core.
    """
    found = (find_allocator(), find_openmp(runtime) or find_gnu_openmp(runtime))
    return tuple(path for path in found if path is not None)


def find_allocator(folders: tuple[str, ...] = _SYSTEM_FOLDERS) -> Path | None:
    """tcmalloc as the operating system ships it."""
    places = (Path(folder) / name for folder in folders for name in _ALLOCATORS)
    return next((place for place in places if place.exists()), None)


def find_openmp(runtime: Runtime) -> Path | None:
    """`libiomp5.so`, which the wheel intel-openmp puts into the runtime's `lib/`."""
    place = runtime.python.parent.parent / "lib" / _OPENMP
    return place if place.exists() else None


def find_gnu_openmp(runtime: Runtime) -> Path | None:
    """The `libgomp` that torch's wheel brings along; the better one is Intel's."""
    packages = runtime.python.parent.parent / "lib"
    places = (
        place
        for folder in ("torch.libs", "torch/lib")
        for place in packages.glob(f"python3*/site-packages/{folder}/libgomp*.so*")
    )
    return next(places, None)
