"""What is known of a model beyond its bytes, for people and for those who ask before a pull."""

from dataclasses import dataclass

EngineArgs = tuple[tuple[str, str | int | float | bool], ...]
Sampling = tuple[tuple[str, int | float], ...]


@dataclass(frozen=True, slots=True)
class Extension:
    """A longer context than the model was made for.

    `engine_args`: what switches it on, besides the length; None: it cannot be switched on here.
    """

    context_tokens: int
    how: str
    engine_args: EngineArgs | None = None


@dataclass(frozen=True, slots=True)
class ToolTemplate:
    """Tools work with this chat template only, a file of vLLM's examples, and with this parser."""

    file: str
    parser: str


@dataclass(frozen=True, slots=True)
class GeometryFacts:
    """Numbers of the published config.json. None: the model has no such thing.

    With latent attention (MLA) the ranks and head sizes stand instead of KV heads and `head_dim`.
    `window`: tokens that the layers with a sliding window see.
    """

    layers: int
    hidden: int
    heads: int
    vocab: int
    kv_heads: int | None = None
    head_dim: int | None = None
    experts: int | None = None
    experts_per_token: int | None = None
    window: int | None = None
    kv_lora_rank: int | None = None
    q_lora_rank: int | None = None
    rope_head_dim: int | None = None
    nope_head_dim: int | None = None
    value_head_dim: int | None = None


@dataclass(frozen=True, slots=True)
class Facts:
    """What no engine acts on. `recommended`: a rank, 1 for what `serve auto` tries first; None: it
    never takes it by itself. `languages`: codes of those that the makers claim.

    `sampling`: what the makers advise, by vLLM's names, and what they advise for answers without
    thinking where that differs. `weights_bytes`: the published size of all safetensors.
    """

    languages: tuple[str, ...] = ()
    sampling: Sampling = ()
    sampling_without_thinking: Sampling = ()
    tool_template: ToolTemplate | None = None
    geometry: GeometryFacts | None = None
    weights_bytes: int | None = None
    recommended: int | None = None
