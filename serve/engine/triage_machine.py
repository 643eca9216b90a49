"""Causes that lie in the machine: memory, drivers, cards, tools, limits, processes.

Wordings of vLLM 0.6 to 0.33, torch, NCCL, triton and FlashInfer; `tests/engine_unit/failures/` has
where each was seen.
"""

from serve.engine.triage_cause import Cause, row

_TOO_LONG = (
    r"max seq len \((\d+)\), \(([\d.]+) GiB KV cache is needed.{0,80}?cache memory "
    r"\(([\d.]+) GiB\)"
)
_OOM = r"CUDA out of memory(?:\. Tried to allocate ([\d.]+ \w+))?|CUDA error: out of memory"

MEMORY: tuple[Cause, ...] = (
    row(
        r"[Ff]ree memory on device(?: \S+)? \(([\d.]+)/([\d.]+) GiB\) on startup is less than "
        r"desired GPU memory utilization \(([\d.]+)",
        "only {0} of {1} GiB of the GPU's memory are free",
        "stop what else uses the GPU (inhouse devices names it), or set "
        "engine.gpu_memory_utilization to less",
        kind="gpu_busy",
    ),
    row(
        r"Error in memory profiling\. Initial (?:free|used) memory ([\d.]+)",
        "another process gave GPU memory back, or took some, while vLLM measured it",
        "start it again when nothing else starts or ends on this GPU",
    ),
    row(
        r"Available memory on node \S+ \(([\d.]+)/([\d.]+) GiB\) on startup is less than desired",
        "only {0} of {1} GiB of this machine's memory are free",
        "set a smaller engine.kv_cache, or stop what else uses the memory",
    ),
    row(
        rf"{_TOO_LONG}.{{0,80}}?maximum model length is (\d+)",
        "one request of {0} tokens needs {1} GiB of KV cache, {2} GiB are there",
        "set engine.context to {3} or less, or engine.kv_cache to more",
        kind="context",
    ),
    row(
        _TOO_LONG,
        "one request of {0} tokens needs {1} GiB of KV cache, {2} GiB are there",
        "set engine.kv_cache to more, or engine.context to less",
    ),
    row(
        r"max seq len \((\d+)\) is larger than the maximum number of tokens that can be stored in "
        r"KV cache \((\d+)\)",
        "one request of {0} tokens does not fit into the KV cache, which holds {1}",
        "set engine.context to {1} or less, or engine.kv_cache to more",
        kind="context_v0",
    ),
    row(
        r"Available memory on node \S+ \(([\d.]+)/[\d.]+ GiB\) on kv cache allocation is less than "
        r"requested memory for kv \(([\d.]+) GiB\)",
        "a KV cache of {1} GiB was asked for, {0} GiB of this machine's memory are free",
        "set engine.kv_cache to less, or stop what else uses the memory",
    ),
    row(
        r"No available memory for the cache blocks",
        "the weights leave no memory for the KV cache",
        "choose a smaller or quantised model, or more GPUs",
        kind="no_kv",
    ),
    row(
        r"occurred when warming up (?:the )?(?:sampler|pooler) with (\d+) dummy requests",
        "the GPU's memory ran out at the rehearsal with {0} requests",
        "set engine.max_num_seqs to less than {0}",
        kind="sampler",
    ),
    row(
        _OOM,
        "the GPU's memory ran out while CUDA graphs were recorded",
        "set engine.gpu_memory_utilization to less, or engine.max_num_seqs",
        also=r"[Cc]apturing (?:the model for )?(?:CUDA graph|cudagraph)|in capture_model|"
        r"in capture_end",
        kind="after_kv",
    ),
    row(
        _OOM,
        "the GPU's memory ran out when the KV cache was made",
        "set engine.gpu_memory_utilization to less, or stop what else uses the GPU",
        also=r"in _?(?:allocate_kv_cache|initialize_kv_cache|init_device_cache)",
        kind="after_kv",
    ),
    row(
        _OOM,
        "the GPU's memory ran out at the rehearsal of the largest batch",
        "set engine.max_num_batched_tokens to less",
        also=r"in (?:profile_run|determine_(?:available_memory|num_available_blocks))",
        kind="profile",
    ),
    row(
        _OOM,
        "the weights do not fit into the GPU's memory",
        "choose a smaller or quantised model, or more GPUs",
        also=r"in (?:load_model|_load_weights|load_weights|create_weights|initialize_model)",
    ),
    row(
        _OOM,
        "the GPU's memory ran out (another {0} was asked for)",
        "choose a smaller or quantised model, a smaller engine.context, or more GPUs",
    ),
    row(
        r"can't allocate memory: you tried to allocate (\d+) bytes|Cannot allocate memory|"
        r"\bMemoryError\b|std::bad_alloc",
        "the machine's memory ran out",
        "set a smaller engine.kv_cache, or choose a smaller model",
    ),
)

CARDS: tuple[Cause, ...] = (
    row(
        r"The NVIDIA driver on your system is too old \(found version (\d+)\)",
        "the NVIDIA driver is too old (it knows CUDA {0})",
        "install driver 580 or newer",
    ),
    row(
        r"CUDA driver version is insufficient for CUDA runtime version",
        "the NVIDIA driver is too old for this vLLM's CUDA",
        "install driver 580 or newer",
    ),
    row(
        r"(libcuda\.so(?:\.\d+)?): cannot open shared object file",
        "the NVIDIA driver's library {0} is missing",
        "install NVIDIA driver 580 or newer; a container needs --gpus all",
    ),
    row(
        r"(lib(?:cuda|cu|nv|nccl)\w*\.so\.\d+): cannot open shared object file",
        "the CUDA library {0} is missing: vLLM was built for another CUDA than is installed",
        "inhouse engine install",
    ),
    row(
        r"Error 802: system not yet initialized|CUDA_ERROR_SYSTEM_NOT_READY",
        "the GPUs' NVSwitch fabric is not up",
        "start nvidia-fabricmanager, of the same version as the driver",
    ),
    row(
        r"Error 803: system has unsupported display driver",
        "the NVIDIA driver and its libraries are of different versions",
        "restart the machine after an update of the driver; in a container, remove CUDA's compat "
        "folder from LD_LIBRARY_PATH",
    ),
    row(
        r"Error 804: forward compatibility was attempted",
        "the NVIDIA driver is too old, and this GPU takes no CUDA compat libraries",
        "install driver 580 or newer",
    ),
    row(
        r"uncorrectable ECC error|fallen off the bus|GPU is lost|unspecified launch failure",
        "the GPU has failed",
        "restart the machine; if it fails again the card is broken (dmesg shows its Xid)",
    ),
    row(
        r"no kernel image is available for execution on the device",
        "this vLLM has no code for this kind of GPU",
        "use a GPU of compute capability 7.5 or higher",
    ),
    row(
        r"No CUDA GPUs are available|Failed to infer device type|Found no NVIDIA driver",
        "vLLM sees no GPU",
        "inhouse doctor shows why; a container needs --gpus all",
    ),
    row(
        r"Bfloat16 is only supported on GPUs with compute capability of at least (\d+\.\d+)",
        "this GPU cannot compute in bfloat16 (it takes compute capability {0})",
        "set engine.dtype to float16",
    ),
    row(
        r"type fp8e4nv not supported in this architecture",
        "this GPU cannot compute in FP8 (it takes compute capability 8.9)",
        "choose a variant of the model that is not FP8",
    ),
    row(
        r"quantization method (\S+) is not supported for the current GPU\. Minimum\s+capability: "
        r"(\d+)\. Current capability: (\d+)",
        "the quantisation {0} takes a GPU of capability {1}, this one has {2}",
        "choose another variant of the model, or another GPU",
    ),
    row(
        r"Quantization scheme is not supported for\W+the current GPU\. Min(?:imum)? capability: "
        r"(\d+)\W+Current capability: (\d+)",
        "the model's quantisation takes a GPU of capability {0}, this one has {1}",
        "choose another variant of the model, or another GPU",
    ),
    row(
        r"out of resource: shared memory, Required: (\d+), Hardware limit: (\d+)",
        "a kernel takes {0} bytes of shared memory, this GPU has {1}",
        "choose another variant of the model, or a GPU of compute capability 8.0 or higher",
    ),
    row(
        r"No valid attention backend found|Selected backend \S+ is not valid for this "
        r"configuration|FP8 KV cache not",
        "no attention kernel takes this model with these settings on this device",
        "set engine.kv_dtype to auto; else another variant of the model, or a newer vLLM",
    ),
)

TOOLS: tuple[Cause, ...] = (
    row(
        r"Could not find nvcc|nvcc: not found|No such file or directory: '(?:\S*/)?nvcc'",
        "the CUDA compiler nvcc is missing",
        "install the CUDA toolkit and set CUDA_HOME, or add --enforce-eager to engine.args",
    ),
    row(
        r"InvalidCxxCompiler: .*|C\+\+ compiler.{0,80}not found|Failed to find C compiler|"
        r"fatal error: Python\.h",
        "there is no working C++ compiler with Python's headers",
        "install g++ and python3-dev, or set engine.compile to off",
    ),
    row(
        r"version `(GLIBC(?:XX)?_[\d.]+)' not found",
        "this system's C library is too old ({0} is asked for)",
        "use a newer distribution (Ubuntu 22.04, Debian 12, RHEL 9 or later), or a container",
    ),
    row(
        r"Illegal instruction|\(exit code: -4\)",
        "the processor lacks instructions that vLLM was built with",
        "use a processor with AVX2 (better AVX-512), or a GPU",
    ),
    row(
        r"(?:/dev/shm|shared memory segment).{0,200}No space left on device|"
        r"No space left on device.{0,200}/dev/shm|ncclShmOpen|"
        r"unable to (?:open|mmap) shared memory",
        "/dev/shm is too small for what the GPUs' processes share",
        "give more shared memory (docker: --shm-size 16g or --ipc=host)",
    ),
    row(
        r"pthread_create failed|can't start new thread|Resource temporarily unavailable",
        "the limit of processes and threads is reached",
        "raise it (ulimit -u; docker: --pids-limit -1; systemd: TasksMax=)",
    ),
    row(
        r"(?<!`)(?:OSError: \[Errno 24\]|(?:ZMQ|OS)Error: Too many open files)",
        "the limit of open files is reached",
        "raise it (ulimit -n 65536; systemd: LimitNOFILE=)",
    ),
    row(
        r"\[Errno 28\] No space left on device",
        "the disk is full",
        "make room on the disk of paths.home",
    ),
    row(
        r"Not enough allowed NUMA nodes",
        "there are fewer NUMA nodes than parts of the model",
        "run it unsplit, or with fewer parts",
    ),
    row(
        r"Cannot re-initialize CUDA in forked subprocess",
        "a process of the engine was forked when CUDA was in use already",
        "take a plugin or a package that uses CUDA at import out of the runtime",
    ),
)

# What follows from many things: believed when nothing above is found anywhere.
PROCESSES: tuple[Cause, ...] = (
    row(
        r"NCCL (?:error|WARN).{0,80}?(unhandled \w+ error)|ncclSystemError|ncclUnhandledCudaError",
        "the GPUs' processes cannot talk to each other (NCCL: {0})",
        "see NCCL's own words with NCCL_DEBUG=INFO; NCCL_P2P_DISABLE=1 avoids a broken direct path "
        "between cards, a larger /dev/shm (docker: --ipc=host) a small one",
    ),
    row(
        r"(?:illegal memory access|device-side assert|CUBLAS_STATUS_\w+)",
        "a GPU kernel crashed",
        "add --enforce-eager to engine.args; if it stays, choose a newer vLLM",
    ),
    row(
        # The last: a killed core says nothing, and its worker only that it was `cancelled`.
        r"died unexpectedly.{0,40}?\(exit code: -9\)|Killed process|oom[-_]kill|"
        r"Failed core proc\(s\): \{[^}]*: -9\b",
        "the kernel killed a process of the engine, most likely for lack of memory",
        "set a smaller engine.kv_cache, or choose a smaller model",
    ),
    row(
        r"died unexpectedly.{0,40}?\(exit code: (-?\d+)\)",
        "a process of the engine crashed (exit code {0})",
        "set engine.compile to off",
    ),
    row(
        r"Segmentation fault|segfault",
        "a process of the engine crashed (segmentation fault)",
        "set engine.compile to off",
    ),
    row(
        r"Worker proc \S+ died unexpectedly, shutting down",
        "a process of the engine died",
        "see whether the kernel killed it for lack of memory (dmesg), then start it again",
    ),
    row(
        r"RPC call to \w+ timed out",
        "a process of the engine hung",
        "start it again",
    ),
    row(
        r"Timed out waiting for engine",
        "the engine took too long to load",
        "start it again: the files are in the page cache now; or a faster disk for the weights",
    ),
)
