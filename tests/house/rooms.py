"""The table of rooms, and who owns what. `ARCHITECTURE.md` shows the same table to people."""

FLOOR_0 = frozenset(
    {"errors", "units", "log", "shipped", "sources", "shape", "quota"} | {"serving_errors"}
)

# Room → the rooms that it may import, besides itself. The order is that of the floors.
ROOMS: dict[str, frozenset[str]] = {
    "serving_errors": frozenset(),
    "errors": frozenset({"serving_errors"}),
    "units": frozenset(),
    "log": frozenset(),
    "shipped": frozenset(),
    "sources": frozenset(),
    "shape": frozenset(),
    "quota": frozenset(),
    "wire": FLOOR_0,
    "disk": FLOOR_0,
    "settings": FLOOR_0,
    "catalog": FLOOR_0,
    "hardware": FLOOR_0 | {"disk"},
    "geometry": FLOOR_0,
    "profiles": FLOOR_0 | {"disk"},
    "bench": FLOOR_0,
    "inside": frozenset(),
    "policy": FLOOR_0 | {"catalog"},
    "lock": FLOOR_0 | {"disk", "catalog"},
    "store": FLOOR_0 | {"disk", "catalog", "geometry", "policy", "lock"},
    "plan": FLOOR_0 | {"catalog", "hardware", "geometry", "profiles"},
    "roster": FLOOR_0,
    "limits": FLOOR_0,
    "journal": FLOOR_0 | {"disk"},
    "ledger": FLOOR_0 | {"disk", "journal"},
    "bundle": FLOOR_0 | {"disk", "catalog", "policy", "store"},
    "mirror": FLOOR_0 | {"store"},
    "engine": FLOOR_0 | {"hardware", "profiles", "plan"},
    "fleet": FLOOR_0
    | {"wire", "settings", "catalog", "geometry", "profiles", "store", "hardware", "plan"}
    | {"engine", "roster"},
    "gateway": FLOOR_0 | {"disk", "roster", "limits", "journal"},
    "control": FLOOR_0 | {"wire", "settings", "fleet", "journal", "ledger", "roster"},
    "cli": FLOOR_0
    | {"settings", "catalog", "hardware", "geometry", "profiles", "bench", "policy", "lock"}
    | {"store", "plan", "roster", "limits", "journal"}
    | {"wire", "disk", "ledger", "bundle", "mirror", "engine", "fleet", "gateway", "control"},
}

BANNED_NAMES = frozenset(
    {"utils", "util", "common", "helpers", "helper", "misc", "base", "manager"}
    | {"handler", "service", "wrapper", "data", "info"}
)

# The only imports below the top of a file: what is slow to import and seldom needed. File → module.
LAZY = {
    "lock/file.py": "serve.lock",
    "store/manifest.py": "serve.store",
    "catalog/load.py": "serve.catalog",
    "store/origins.py": "serve.store",
    "store/looking.py": "serve.store",
    "bundle/openssf.py": "model_signing",
    "hardware/nvml.py": "pynvml",
    "gateway/app.py": "serve.gateway.traces",
    "gateway/spool.py": "serve.gateway.sealing",
    "ledger/database.py": "serve.ledger.migrating",
}

# Library → where it may be imported: files and folders of serve/.
IMPORT_OWNERS: dict[str, tuple[str, ...]] = {
    "huggingface_hub": ("store/hub_client.py",),
    "modelscope_hub": ("store/modelscope.py",),
    "modelscope": (),  # the whole of it; its Hub client is a package of its own
    "requests": ("store/modelscope.py",),  # that client's errors
    "pynvml": ("hardware/nvml.py",),
    "yaml": ("catalog/", "settings/"),
    "subprocess": ("engine/process.py", "inside/"),
    "multiprocessing": ("inside/",),
    "pty": (),
    "signal": (
        "engine/",
        "inside/",
        "cli/",
        "gateway/server.py",
    ),  # their names; to send one, see below
    "torch": ("inside/",),
    "transformers": ("inside/",),
    "vllm": ("inside/",),
    "gguf": ("inside/",),
    "safetensors": ("inside/",),
    "accelerate": ("inside/",),
    "typer": ("cli/",),
    "click": ("cli/",),
    "rich": ("cli/",),
    "fastapi": (),  # a third of a second at every start, for what a table of routes does
    "starlette": ("gateway/", "control/"),
    "uvicorn": ("gateway/", "control/"),
    "httptools": ("gateway/", "bench/", "mirror/reading.py"),
    "prometheus_client": ("gateway/", "mirror/metrics.py"),
    "sqlalchemy": ("ledger/",),
    "alembic": ("ledger/",),
    "sqlite3": ("ledger/",),
    "cryptography": ("bundle/", "gateway/sealing.py"),
    "xxhash": ("roster/",),
    "opentelemetry": ("gateway/traces.py",),
    "psycopg": (),  # SQLAlchemy loads it
    "model_signing": ("bundle/openssf.py",),
    "tarfile": ("bundle/part.py",),
}

# What the interpreter offers everywhere, but only some may take: dotted name → where.
_ENVIRONMENT = ("cli/", "inside/", "gateway/__main__.py")
_SPAWNING = ("engine/process.py", "inside/")
_SPEAKING = ("cli/", "inside/")
NAME_OWNERS: dict[str, tuple[str, ...]] = {
    "os.environ": _ENVIRONMENT,
    "os.environb": _ENVIRONMENT,
    "os.getenv": _ENVIRONMENT,
    "os.putenv": _ENVIRONMENT,
    "os.fork": _SPAWNING,
    "os.forkpty": _SPAWNING,
    "os.system": (),
    "os.popen": (),
    "os.kill": _SPAWNING,
    "os.killpg": _SPAWNING,
    "os.execv": _SPAWNING,
    "os.execve": _SPAWNING,
    "os.execvp": _SPAWNING,
    "os.execvpe": _SPAWNING,
    "os.posix_spawn": _SPAWNING,
    "os.posix_spawnp": _SPAWNING,
    "os.waitpid": _SPAWNING,
    "os.setsid": _SPAWNING,
    "importlib.import_module": ("cli/late.py", "inside/"),  # elsewhere, say what you import
    "asyncio.create_subprocess_exec": _SPAWNING,
    "asyncio.create_subprocess_shell": (),
    "signal.signal": ("inside/", "cli/"),
    "signal.raise_signal": ("inside/", "cli/"),
    "signal.pidfd_send_signal": _SPAWNING,
    "print": _SPEAKING,
    "sys.stdout": _SPEAKING,
    "input": ("cli/",),
}

# Only these may say how every record of the process is written.
LOG_OWNERS = ("cli/", "gateway/__main__.py")

# vLLM's own words. Docstrings may say them; code elsewhere may not.
VLLM_OWNERS = ("engine/", "inside/", "cli/planning.py", "plan/cures.py")
VLLM_FLAGS = frozenset(
    {"--async-scheduling", "--block-size", "--chat-template", "--compilation-config", "--dtype"}
    | {"--cpu-offload-gb", "--enable-auto-tool-choice", "--enable-prefix-caching"}
    | {"--enable-prompt-tokens-details", "--enforce-eager", "--gpu-memory-utilization"}
    | {"--kv-cache-dtype", "--kv-cache-memory-bytes", "--limit-mm-per-prompt", "--max-model-len"}
    | {"--max-num-batched-tokens", "--max-num-seqs", "--reasoning-parser", "--served-model-name"}
    | {"--tensor-parallel-size", "--tool-call-parser", "--trust-remote-code", "--uds"}
)

LARGEST_FILE_LINES = 400
LARGEST_FUNCTION_LINES = 60
MOST_ARGUMENTS = 6
MOST_EXPORTS = 6
