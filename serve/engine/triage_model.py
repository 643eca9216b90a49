"""Causes that lie in the model's files, in settings that do not go with it, or in sockets."""

from serve.engine.triage_cause import Cause, row

_PULL = "remove the model and pull it again"

FILES: tuple[Cause, ...] = (
    row(
        r"Cannot find any model weights with `?([^`\n]+?)`?\s*$",
        "there are no weights in {0}",
        "pull the model again",
    ),
    row(
        r"Weight files referenced in index but missing: \{'?(?:[^'}]*/)?([^'}/]+)",
        "a file of the weights is missing: {0}",
        _PULL,
    ),
    row(
        r"(?:SafetensorError: .*?(?:deserializing header|incomplete metadata|InvalidHeader).*"
        r"|MetadataIncompleteBuffer)",
        "a file of the weights is damaged or cut short",
        _PULL,
    ),
    row(
        r"exceeds dimension size|size mismatch for|Attempted to load weight \(",
        "the weights do not have the shapes that the model's config.json says",
        _PULL,
    ),
    row(
        r"(?:Following weights were not initialized from checkpoint|"
        r"weights were not initialized): \{?'?([\w.]+)",
        "weights are missing: {0} and perhaps more",
        _PULL,
    ),
    row(
        r"Couldn't instantiate the backend tokenizer",
        "the model's folder has no tokenizer that can be read",
        _PULL,
    ),
    row(
        r"error downloading or loading vocab file",
        "gpt-oss's own tokenizer files are missing, and engines have no network to fetch them",
        "set TIKTOKEN_ENCODINGS_BASE to a folder with o200k_base.tiktoken",
    ),
    row(
        r"(?:Invalid repository ID or local directory specified: |Repo id must [^\n]*: )'([^']+)'",
        "there is no folder with a model at {0}",
        "pull the model again",
    ),
    row(
        r"It looks like the config file at '([^']+)' is not a valid JSON file",
        "{0} is not JSON",
        _PULL,
    ),
    row(
        r"[`'](?:trust_remote_code=True|--trust-remote-code)|contains custom code which must be",
        "the model wants to run Python of its own repository, which is not allowed",
        "choose a variant of the model that needs none",
    ),
    row(
        r"gated repo|Access to model (\S+) is restricted",
        "the model's repository is gated, and a file of it is missing here",
        "ask for access on the Hub and pull the model again",
    ),
    row(
        r"(?:offline mode is enabled|OfflineModeIsEnabled|LocalEntryNotFoundError|Can't load "
        r"(?:tokenizer|the configuration) for|couldn't connect to 'https://huggingface\.co')",
        "a file of the model is missing here, and engines have no network to fetch it",
        _PULL,
    ),
)

FIT: tuple[Cause, ...] = (
    row(
        r"Model architectures? \[?'?([^\]'\n]+)'?\]? (?:are|is) not supported",
        "this vLLM does not know the architecture {0}",
        "choose another model, or a newer vLLM through engine.python",
    ),
    row(
        r"has model type `?([\w-]+)`? but Transformers does not recognize this architecture",
        "this vLLM's transformers do not know the model type {0}",
        "choose another model, or a newer vLLM through engine.python",
    ),
    row(
        r"User-specified max_model_len \((\d+)\) is greater than the derived max_model_len "
        r"\(.*?=(\d+)",
        "a context of {0} tokens was asked for, the model was made for {1}",
        "set engine.context to {1} or less",
    ),
    row(
        r"Total number of attention heads \((\d+)\) must be divisible by tensor parallel size "
        r"\((\d+)\)",
        "the model's {0} attention heads cannot be split over {1} devices",
        "use a number of devices that divides {0}",
    ),
    row(
        r"(?:output_size of gate's and up's weight|Weight (?:in|out)put_size_per_partition|"
        r"input_size of down's weight) = (\d+)\s+is not divisible by weight quantization "
        r"block_[nk] = (\d+)",
        "a part of the FP8 weights would be {0} wide, which is no multiple of their blocks of {1}",
        "split the model over fewer devices (engine.tensor_parallel), or choose another variant",
    ),
    row(
        r"size is not aligned with the quantized\s+weight shape",
        "the quantised weights cannot be split over so many devices",
        "split the model over fewer devices (engine.tensor_parallel), or choose another variant",
    ),
    row(
        r"n_physical_experts=(\d+) must be divisible by ep_size=(\d+)",
        "the model's {0} experts cannot be split over {1} devices",
        "use a number of devices that divides {0}",
    ),
    row(
        r"(torch\.\w+) is not supported for quantization method (\w+)\. Supported dtypes: "
        r"\[([^\]]+)\]",
        "the quantisation {1} does not go with {0}",
        "set engine.dtype to what it takes: {2}",
    ),
    row(
        r"Unknown quantization method: (\S+?)\.?(?:\s|$)",
        "this vLLM does not know the quantisation {0}",
        "choose another variant of the model, or a newer vLLM through engine.python",
    ),
    row(
        r"[Pp]ipeline parallelism is not supported",
        "this vLLM cannot run the model in stages",
        "set engine.pipeline_parallel to 1",
    ),
    row(
        r"KeyError: '([\w.]+\.\w*(?:weight|bias|scale|zero)[\w.]*)'",
        "the weights hold a tensor that this vLLM's model does not: {0}",
        "choose another variant of the model, or a newer vLLM through engine.python",
    ),
)

FLAGS: tuple[Cause, ...] = (
    row(
        r"(?:KeyError|ValueError): .*?[Ii]nvalid tool call parser: ?([\w.-]+)",
        "this vLLM has no tool call parser {0}",
        "correct tool_call_parser in the catalog",
    ),
    row(
        r"(?:[Ii]nvalid reasoning parser: |Reasoning parser ')([\w.-]+)",
        "this vLLM has no reasoning parser {0}",
        "correct reasoning_parser in the catalog",
    ),
    row(
        r"enable-auto-tool-choice requires --tool-call-parser",
        "tool calls were asked for without a parser for them",
        "add --tool-call-parser to engine.args",
    ),
    row(
        r"error: (unrecognized arguments: .+|argument .+|the following arguments are required: .+)",
        "vLLM refuses a flag: {0}",
        "correct engine.args or the catalog's engine_args",
    ),
    row(
        r"AF_UNIX path too long",
        "the path of the engine's socket is too long",
        "set paths.run to a shorter folder",
    ),
    row(
        r"\[Errno 98\]|[Aa]ddress already in use|EADDRINUSE",
        "the engine's socket is taken",
        "stop the other Inhouse that uses paths.run",
    ),
)

# Said of a file that could not be read, of whatever kind: believed when nothing else is found.
UNREAD: tuple[Cause, ...] = (
    row(
        r"Model architectures? \[?'?([^\]'\n]+)'?\]? failed to be inspected",
        "this vLLM's code for the architecture {0} cannot be imported",
        "inhouse engine install: its packages do not go together",
    ),
)
