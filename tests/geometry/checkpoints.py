"""Safetensors headers as published checkpoints have them, written out by hand for four families."""

from collections.abc import Iterator
from typing import Any

from serve.shape import Tensor

BITS = {"BF16": 16, "F16": 16, "F32": 32, "F8_E4M3": 8, "I32": 32, "U8": 8}


def tensor(name: str, *shape: int, dtype: str = "BF16") -> Tensor:
    count = 1
    for size in shape:
        count *= size
    return Tensor(name, dtype, shape, count * BITS[dtype] // 8)


def dense(config: dict[str, Any], packing: str = "", has_bias: bool = False) -> list[Tensor]:
    """Llama, Qwen2 (`has_bias`), Qwen3 (with `head_dim`). `packing`: "", "fp8", "awq", "gptq"."""
    hidden, width = config["hidden_size"], config["intermediate_size"]
    found = list(ends(config))
    for number in range(config["num_hidden_layers"]):
        layer = f"model.layers.{number}"
        found += attention(config, layer, packing, has_bias)
        found += matrix(f"{layer}.mlp.gate_proj", width, hidden, packing)
        found += matrix(f"{layer}.mlp.up_proj", width, hidden, packing)
        found += matrix(f"{layer}.mlp.down_proj", hidden, width, packing)
        found += norms(layer, hidden)
    return found


def mixture(config: dict[str, Any], packing: str = "") -> list[Tensor]:
    """Qwen3's experts."""
    hidden, width = config["hidden_size"], config["moe_intermediate_size"]
    found = list(ends(config))
    for number in range(config["num_hidden_layers"]):
        layer = f"model.layers.{number}"
        found += attention(config, layer, packing, False)
        found.append(tensor(f"{layer}.mlp.gate.weight", config["num_experts"], hidden))
        for expert in range(config["num_experts"]):
            at = f"{layer}.mlp.experts.{expert}"
            found += matrix(f"{at}.gate_proj", width, hidden, packing)
            found += matrix(f"{at}.up_proj", width, hidden, packing)
            found += matrix(f"{at}.down_proj", hidden, width, packing)
        found += norms(layer, hidden)
    return found


def gpt_oss(config: dict[str, Any]) -> list[Tensor]:
    """OpenAI's own form: all experts of a layer in one tensor of blocks and one of scales."""
    hidden, width = config["hidden_size"], config["intermediate_size"]
    experts, heads = config["num_local_experts"], config["num_attention_heads"]
    found = list(ends(config))
    for number in range(config["num_hidden_layers"]):
        layer = f"model.layers.{number}"
        found += attention(config, layer, "", True, has_norms=False)
        found.append(tensor(f"{layer}.self_attn.o_proj.bias", hidden))
        found.append(tensor(f"{layer}.self_attn.sinks", heads))
        found.append(tensor(f"{layer}.mlp.router.weight", experts, hidden))
        found.append(tensor(f"{layer}.mlp.router.bias", experts))
        at = f"{layer}.mlp.experts"
        up, blocks = 2 * width, hidden // 32
        found.append(tensor(f"{at}.gate_up_proj_blocks", experts, up, blocks, 16, dtype="U8"))
        found.append(tensor(f"{at}.gate_up_proj_scales", experts, up, blocks, dtype="U8"))
        found.append(tensor(f"{at}.gate_up_proj_bias", experts, up))
        blocks = width // 32
        found.append(tensor(f"{at}.down_proj_blocks", experts, hidden, blocks, 16, dtype="U8"))
        found.append(tensor(f"{at}.down_proj_scales", experts, hidden, blocks, dtype="U8"))
        found.append(tensor(f"{at}.down_proj_bias", experts, hidden))
        found += norms(layer, hidden)
    return found


def deepseek(config: dict[str, Any]) -> list[Tensor]:
    """V2-Lite: latent attention, queries not compressed, shared experts."""
    hidden, heads = config["hidden_size"], config["num_attention_heads"]
    rank, rope = config["kv_lora_rank"], config["qk_rope_head_dim"]
    nope, value = config["qk_nope_head_dim"], config["v_head_dim"]
    found = list(ends(config))
    for number in range(config["num_hidden_layers"]):
        layer = f"model.layers.{number}"
        at = f"{layer}.self_attn"
        found += matrix(f"{at}.q_proj", heads * (nope + rope), hidden)
        found += matrix(f"{at}.kv_a_proj_with_mqa", rank + rope, hidden)
        found.append(tensor(f"{at}.kv_a_layernorm.weight", rank))
        found += matrix(f"{at}.kv_b_proj", heads * (nope + value), rank)
        found += matrix(f"{at}.o_proj", hidden, heads * value)
        found += feed_forward(config, number)
        found += norms(layer, hidden)
    return found


def feed_forward(config: dict[str, Any], number: int) -> Iterator[Tensor]:
    hidden, width = config["hidden_size"], config["moe_intermediate_size"]
    at = f"model.layers.{number}.mlp"
    blocks = {at: config["intermediate_size"]}
    if number >= config["first_k_dense_replace"]:
        yield tensor(f"{at}.gate.weight", config["n_routed_experts"], hidden)
        blocks = {f"{at}.experts.{n}": width for n in range(config["n_routed_experts"])}
        blocks[f"{at}.shared_experts"] = width * config["n_shared_experts"]
    for block, inner in blocks.items():
        yield from matrix(f"{block}.gate_proj", inner, hidden)
        yield from matrix(f"{block}.up_proj", inner, hidden)
        yield from matrix(f"{block}.down_proj", hidden, inner)


def ends(config: dict[str, Any]) -> Iterator[Tensor]:
    vocab, hidden = config["vocab_size"], config["hidden_size"]
    yield tensor("model.embed_tokens.weight", vocab, hidden)
    yield tensor("model.norm.weight", hidden)
    if not config.get("tie_word_embeddings"):
        yield tensor("lm_head.weight", vocab, hidden)


def norms(layer: str, hidden: int) -> list[Tensor]:
    names = ("input_layernorm", "post_attention_layernorm")
    return [tensor(f"{layer}.{name}.weight", hidden) for name in names]


def attention(
    config: dict[str, Any], layer: str, packing: str, has_bias: bool, has_norms: bool = True
) -> Iterator[Tensor]:
    hidden, heads = config["hidden_size"], config["num_attention_heads"]
    size = config.get("head_dim", hidden // heads)
    query, key = heads * size, config["num_key_value_heads"] * size
    for name, outs in (("q_proj", query), ("k_proj", key), ("v_proj", key)):
        yield from matrix(f"{layer}.self_attn.{name}", outs, hidden, packing)
        if has_bias:
            yield tensor(f"{layer}.self_attn.{name}.bias", outs)
    yield from matrix(f"{layer}.self_attn.o_proj", hidden, query, packing)
    if "head_dim" in config and has_norms:
        yield tensor(f"{layer}.self_attn.q_norm.weight", size)
        yield tensor(f"{layer}.self_attn.k_norm.weight", size)


def matrix(name: str, outs: int, ins: int, packing: str = "") -> Iterator[Tensor]:
    if packing == "fp8":
        yield tensor(f"{name}.weight", outs, ins, dtype="F8_E4M3")
        yield tensor(f"{name}.weight_scale_inv", -(-outs // 128), -(-ins // 128), dtype="F32")
    elif packing == "awq":
        yield tensor(f"{name}.qweight", ins, outs // 8, dtype="I32")
        yield tensor(f"{name}.qzeros", ins // 128, outs // 8, dtype="I32")
        yield tensor(f"{name}.scales", ins // 128, outs, dtype="F16")
    elif packing == "gptq":
        yield tensor(f"{name}.qweight", ins // 8, outs, dtype="I32")
        yield tensor(f"{name}.qzeros", ins // 128, outs // 8, dtype="I32")
        yield tensor(f"{name}.scales", ins // 128, outs, dtype="F16")
        yield tensor(f"{name}.g_idx", ins, dtype="I32")
    else:
        yield tensor(f"{name}.weight", outs, ins)
