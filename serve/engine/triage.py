"""From the log of a failed start to its root cause: a table, and a rule for what is not in it.

vLLM starts in three processes; when one fails, the others complain too. The cause is in the first
traceback of the innermost one, never in "Engine core initialization failed. See root cause above".
"""

import re
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Cause:
    """`pattern` finds it in a log; its groups fill `sentence` and `remedy` (`{0}` is the first)."""

    pattern: re.Pattern[str]
    sentence: str
    remedy: str | None = None


def _row(pattern: str, sentence: str, remedy: str | None = None) -> Cause:
    return Cause(re.compile(pattern), sentence, remedy)


_TOO_LONG = (
    r"max seq len \((\d+)\), \(([\d.]+) GiB KV cache is needed.*?cache memory \(([\d.]+) GiB\)"
)

# The first row that matches anywhere in the log wins: from what only one thing can cause to
# what is a consequence of many.
CAUSES = (
    # memory of the card or the machine
    _row(
        r"Free memory on device \S+ \(([\d.]+)/([\d.]+) GiB\) on startup is less than desired",
        "only {0} of {1} GiB of the GPU's memory are free",
        "stop what else uses the GPU (nvidia-smi shows it)",
    ),
    _row(
        r"Available memory on node \S+ \(([\d.]+)/([\d.]+) GiB\) on startup is less than desired",
        "only {0} of {1} GiB of this machine's memory are free",
        "set a smaller engine.kv_cache, or stop what else uses the memory",
    ),
    _row(
        rf"{_TOO_LONG}.*?maximum model length is (\d+)",
        "one request of {0} tokens needs {1} GiB of KV cache, {2} GiB are there",
        "set engine.context to {3} or less, or engine.kv_cache to more",
    ),
    _row(
        _TOO_LONG,
        "one request of {0} tokens needs {1} GiB of KV cache, {2} GiB are there",
        "set engine.kv_cache to more",
    ),
    _row(
        r"Available memory on node \S+ \(([\d.]+)/[\d.]+ GiB\) on kv cache allocation is less than "
        r"requested memory for kv \(([\d.]+) GiB\)",
        "a KV cache of {1} GiB was asked for, {0} GiB of this machine's memory are free",
        "set engine.kv_cache to less, or stop what else uses the memory",
    ),
    _row(
        r"No available memory for the cache blocks",
        "the weights leave no memory for the KV cache",
        "choose a smaller or quantised model, or more GPUs",
    ),
    _row(
        r"occurred when warming up sampler with (\d+) dummy requests",
        "the GPU's memory ran out at the rehearsal with {0} requests",
        "add --max-num-seqs with a smaller number to engine.args",
    ),
    _row(
        r"(?:torch\.OutOfMemoryError: )?CUDA out of memory\. Tried to allocate ([\d.]+ \w+)",
        "the GPU's memory ran out (another {0} was asked for)",
        "choose a smaller or quantised model, a smaller engine.context, or more GPUs",
    ),
    _row(
        r"(?:can't allocate memory: you tried to allocate|Cannot allocate memory|MemoryError)"
        r"(?: (\d+) bytes)?",
        "the machine's memory ran out",
        "set a smaller engine.kv_cache, or choose a smaller model",
    ),
    # drivers and tools
    _row(
        r"The NVIDIA driver on your system is too old \(found version (\d+)\)",
        "the NVIDIA driver is too old (it knows CUDA {0})",
        "install driver 580 or newer",
    ),
    _row(
        r"(libcud\w+\.so\.\d+): cannot open shared object file",
        "{0} is missing",
        "install NVIDIA driver 580 or newer",
    ),
    _row(
        r"no kernel image is available for execution on the device",
        "this vLLM has no code for this kind of GPU",
        "use a GPU of compute capability 7.5 or higher",
    ),
    _row(
        r"(?:Could not find nvcc|nvcc: not found)",
        "the CUDA compiler nvcc is missing",
        "install the CUDA toolkit, or add --enforce-eager to engine.args",
    ),
    _row(
        r"(?:InvalidCxxCompiler: .*|C\+\+ compiler.*not found|fatal error: Python\.h)",
        "there is no working C++ compiler with Python's headers",
        "install g++ and python3-dev, or set engine.compile to off",
    ),
    _row(
        r"(?:NCCL (?:error|WARN).*?(unhandled system error|No space left on device)"
        r"|/dev/shm.*(No space left on device))",
        "the GPUs' processes cannot talk to each other (NCCL)",
        "give more shared memory (docker: --shm-size 16g or --ipc=host)",
    ),
    _row(
        r"Not enough allowed NUMA nodes",
        "there are fewer NUMA nodes than parts of the model",
        "run it unsplit, or with fewer parts",
    ),
    # the model's files
    _row(
        r"Cannot find any model weights with `?([^`\n]+?)`?\s*$",
        "there are no weights in {0}",
        "pull the model again",
    ),
    _row(
        r"(?:SafetensorError: .*?(?:deserializing header|incomplete metadata|InvalidHeader).*"
        r"|MetadataIncompleteBuffer)",
        "a file of the weights is damaged or cut short",
        "remove the model and pull it again",
    ),
    _row(
        r"exceeds dimension size|size mismatch for|Attempted to load weight \(",
        "the weights do not have the shapes that the model's config.json says",
        "remove the model and pull it again",
    ),
    _row(
        r"Couldn't instantiate the backend tokenizer",
        "the model's folder has no tokenizer that can be read",
        "remove the model and pull it again",
    ),
    _row(
        r"Model architectures? \[?'?([^\]'\n]+)'?\]? (?:are|is) not supported",
        "this vLLM does not know the architecture {0}",
        "choose another model, or a newer vLLM through engine.python",
    ),
    _row(
        r"(?:trust_remote_code=True|--trust-remote-code)",
        "the model wants to run Python of its own repository, which is not allowed",
        "choose a variant of the model that needs none",
    ),
    _row(
        r"(?:Invalid repository ID or local directory specified: |Repo id must [^\n]*: )'([^']+)'",
        "there is no folder with a model at {0}",
        "pull the model again",
    ),
    _row(
        r"It looks like the config file at '([^']+)' is not a valid JSON file",
        "{0} is not JSON",
        "remove the model and pull it again",
    ),
    _row(
        r"User-specified max_model_len \((\d+)\) is greater than the derived max_model_len "
        r"\(.*?=(\d+)",
        "a context of {0} tokens was asked for, the model was made for {1}",
        "set engine.context to {1} or less",
    ),
    _row(
        r"Total number of attention heads \((\d+)\) must be divisible by tensor parallel size "
        r"\((\d+)\)",
        "the model's {0} attention heads cannot be split over {1} devices",
        "use a number of devices that divides {0}",
    ),
    _row(
        r"Bfloat16 is only supported on GPUs with compute capability of at least ([\d.]+)",
        "this GPU cannot compute in bfloat16 (it takes compute capability {0})",
        "add --dtype half to engine.args",
    ),
    _row(
        r"(?:offline mode is enabled|LocalEntryNotFoundError|Can't load (?:tokenizer|the config"
        r"uration) for|couldn't connect to 'https://huggingface\.co')",
        "a file of the model is missing here, and engines have no network to fetch it",
        "remove the model and pull it again",
    ),
    # flags
    _row(
        r"(?:KeyError|ValueError): .*?[Ii]nvalid tool call parser: ?([\w.-]+)",
        "this vLLM has no tool call parser {0}",
        "correct tool_call_parser in the catalog",
    ),
    _row(
        r"(?:[Ii]nvalid reasoning parser: |Reasoning parser ')([\w.-]+)",
        "this vLLM has no reasoning parser {0}",
        "correct reasoning_parser in the catalog",
    ),
    _row(
        r"enable-auto-tool-choice requires --tool-call-parser",
        "tool calls were asked for without a parser for them",
        "add --tool-call-parser to engine.args",
    ),
    _row(
        r"error: (unrecognized arguments: .+|argument .+)",
        "vLLM refuses a flag: {0}",
        "correct engine.args or the catalog's engine_args",
    ),
    # sockets and processes
    _row(
        r"AF_UNIX path too long",
        "the path of the engine's socket is too long",
        "set paths.run to a shorter folder",
    ),
    _row(
        r"\[Errno 98\] (?:error while attempting to bind on address )?.*[Aa]ddress already in use",
        "the engine's socket is taken",
        "stop the other Inhouse that uses paths.run",
    ),
    _row(
        r"\[Errno 28\] No space left on device",
        "the disk is full",
        "make room on the disk of paths.home",
    ),
    _row(
        r"died unexpectedly.*?\(exit code: -9\)|Killed process|oom[-_]kill",
        "the kernel killed a process of the engine, most likely for lack of memory",
        "set a smaller engine.kv_cache, or choose a smaller model",
    ),
    _row(
        r"died unexpectedly.*?\(exit code: (-?\d+)\)",
        "a process of the engine crashed (exit code {0})",
        "set engine.compile to off",
    ),
    _row(
        r"(?:RPC call to \w+ timed out|Timed out waiting for engine)",
        "a process of the engine hung",
        "start it again",
    ),
)

_CONSEQUENCES = (
    "Engine core initialization failed",
    "WorkerProc initialization failed",
    "Failed core proc",
    "EngineDeadError",
    "Executor failed",
)
# `(Worker pid=7) ERROR 11-21 19:12:30 [core.py:133] ` before every line that is logged, the process
# alone before every line that is printed.
_PREFIX = re.compile(r"^(?:\((\w+)[^)]*\) ?)?(?:[A-Z]+ [^\]]*\] ?)?")
_INNER = ("Worker", "EngineCore")
_TRACEBACK = "Traceback (most recent call last):"
_CHAINED = ("During handling of the above exception", "The above exception was the direct cause")
_EXCEPTION = re.compile(r"^(?:\w+\.)*\w*(?:Error|Exception|Interrupt|Exit)\b(?:: .*)?$")
_PYDANTIC = re.compile(r"^\s*(?:Value|Assertion) error, (.*?)(?: \[type=.*)?$")


def find_cause(log_text: str) -> tuple[str, str | None]:
    """The root cause in one sentence, and what to do about it where that is known."""
    root = _root_exception(log_text)
    for text in (root, log_text):
        for cause in CAUSES:
            match = cause.pattern.search(text)
            if match is not None:
                groups = [group or "" for group in match.groups()]
                remedy = cause.remedy.format(*groups) if cause.remedy is not None else None
                return cause.sentence.format(*groups), remedy
    return root or _last_words(log_text), None


def _root_exception(log_text: str) -> str:
    """The exception of the innermost process that has one; empty where there is none."""
    said: dict[str, list[str]] = {}
    for line in log_text.splitlines():
        match = _PREFIX.match(line)
        process, end = (match[1] or "", match.end()) if match else ("", 0)
        said.setdefault(process.partition("_")[0], []).append(line[end:])
    others = [process for process in said if process not in _INNER]
    for process in (*_INNER, *others):
        exception = _first_chain(said.get(process, []))
        if exception and not any(words in exception for words in _CONSEQUENCES):
            return exception
    return ""


def _first_chain(lines: list[str]) -> str:
    """The last exception of the first traceback, with those that it was chained from before it."""
    exception = ""
    is_open, goes_on = False, True
    for number, line in enumerate(lines):
        if line.startswith(_TRACEBACK):
            if not goes_on:
                break
            is_open = True
        elif is_open and _EXCEPTION.match(line):
            exception = _with_detail(line, lines[number + 1 : number + 4])
            is_open, goes_on = False, False
        elif line.startswith(_CHAINED):
            goes_on = True
    return exception


def _with_detail(line: str, below: list[str]) -> str:
    """pydantic puts what matters into the lines below its exception's own."""
    details = (_PYDANTIC.match(text) for text in below)
    return next((detail[1] for detail in details if detail), line)


def _last_words(log_text: str) -> str:
    lines = [_PREFIX.sub("", line).strip() for line in log_text.splitlines()]
    told = [line for line in lines if line and not any(words in line for words in _CONSEQUENCES)]
    return told[-1] if told else "it ended without a word"
