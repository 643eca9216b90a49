"""Our bytes of weights against those that the real vLLM allocates, to the byte: tiny models of the
architectures that its CPU build knows, from their configs and from their headers, cut in every way;
and published configs at full size, where they lie beside the checkout."""

import json
import os
import subprocess
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import pytest

from serve.engine.runtime import Runtime
from serve.geometry import read_geometry, weights_per_stage
from serve.shape import Geometry, Parallel, Tensor
from serve.store.safetensors import read_tensors
from tests.engine.conftest import vllm_cache
from tests.plan.known import FACTS

pytestmark = [pytest.mark.engine, pytest.mark.timeout(300)]

ARCHITECTURES = (
    "DeepseekV2ForCausalLM", "DeepseekV3ForCausalLM", "Glm4ForCausalLM", "Glm4MoeForCausalLM",
    "Glm4MoeLiteForCausalLM", "GlmForCausalLM", "GptOssForCausalLM", "LlamaForCausalLM",
    "Qwen2ForCausalLM", "Qwen2MoeForCausalLM", "Qwen3ForCausalLM", "Qwen3MoeForCausalLM",
)  # fmt: skip
# With two layers a stage would have no experts, which vLLM does not take.
UNCUT = {"Glm4MoeForCausalLM", "Glm4MoeLiteForCausalLM"}
LAYOUTS = (Parallel(), Parallel(2), Parallel(1, 2), Parallel(2, is_expert=True))
# Where experts are spread whole; the others' code for it is the same.
SPREAD = {"DeepseekV3ForCausalLM", "GptOssForCausalLM", "Qwen3MoeForCausalLM"}
PUBLISHED = ("Qwen__Qwen3-8B", "zai-org__glm-4-9b-chat", "Qwen__Qwen3-32B-FP8")
# The table of which experts are whose (four numbers per layer), a bias that is not divided with its
# experts, and what transformers' own code keeps besides.
SLACK = {"GlmForCausalLM": 64, "GptOssForCausalLM": 1024}
# One latent attention in FP8: vLLM unpacks the matrix that it multiplies with when decoding.
PACKED: dict[str, Any] = {
    "architectures": ["DeepseekV3ForCausalLM"], "model_type": "deepseek_v3", "hidden_size": 256,
    "intermediate_size": 256, "moe_intermediate_size": 128, "num_hidden_layers": 2,
    "num_attention_heads": 4, "num_key_value_heads": 4, "kv_lora_rank": 512, "q_lora_rank": 128,
    "qk_rope_head_dim": 64, "qk_nope_head_dim": 32, "v_head_dim": 32, "n_routed_experts": 4,
    "num_experts_per_tok": 2, "n_shared_experts": 1, "first_k_dense_replace": 1, "n_group": 1,
    "topk_group": 1, "topk_method": "noaux_tc", "scoring_func": "sigmoid", "vocab_size": 512,
    "max_position_embeddings": 1024, "rope_theta": 10000.0, "torch_dtype": "bfloat16",
    "norm_topk_prob": True, "routed_scaling_factor": 1.0, "hidden_act": "silu",
    "rms_norm_eps": 1e-6, "tie_word_embeddings": False,
    "quantization_config": {
        "quant_method": "fp8", "weight_block_size": [128, 128], "activation_scheme": "dynamic",
        "fmt": "e4m3",
    },
}  # fmt: skip
QUIET = {"HF_HUB_OFFLINE": "1", "VLLM_NO_USAGE_STATS": "1"}


@dataclass(frozen=True)
class Case:
    folder: str
    tensor: int = 1
    pipeline: int = 1
    stage: int = 0
    is_expert: bool = False
    is_loaded: bool = False

    @property
    def parallel(self) -> Parallel:
        return Parallel(self.tensor, self.pipeline, is_expert=self.is_expert)


@pytest.fixture(scope="module")
def tiny(models: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Checkpoints of all architectures, as transformers writes them."""
    target = tmp_path_factory.mktemp("tiny")
    for name in ARCHITECTURES:
        (target / name).symlink_to(models / name)
    packed = target / "packed"
    packed.mkdir()
    (packed / "config.json").write_text(json.dumps(PACKED))
    return target


def cases_of(folder: Path, name: str) -> list[Case]:
    path = str(folder / name)
    layouts = [
        one
        for one in LAYOUTS
        if (one.pipeline == 1 or name not in UNCUT) and (name in SPREAD or not one.is_expert)
    ]
    return [
        Case(path, one.tensor, one.pipeline, stage, one.is_expert)
        for one in layouts
        for stage in range(one.pipeline)
    ]


@pytest.fixture(scope="module")
def counted(
    tiny: Path, runtime: Runtime, cache: Path, tmp_path_factory: pytest.TempPathFactory
) -> dict[Case, dict[str, Any]]:
    """What vLLM allocates in every case, from one child."""
    cases = [case for name in ARCHITECTURES for case in cases_of(tiny, name)]
    cases += [
        Case(str(tiny / name), is_loaded=True) for name in ("DeepseekV3ForCausalLM", "packed")
    ]
    cases += [Case(one, 2) for one in published(tmp_path_factory.mktemp("published"))]
    question = json.dumps([asdict(case) for case in cases])
    script = Path(__file__).with_name("count_weights.py")
    done = subprocess.run(
        [str(runtime.python), str(script)], input=question, capture_output=True, text=True,
        timeout=280, env=os.environ | QUIET | {"VLLM_CACHE_ROOT": str(vllm_cache(runtime, cache))},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    answers = json.loads(done.stdout.strip().splitlines()[-1])
    return dict(zip(cases, answers, strict=True))


def published(folder: Path) -> list[str]:
    """Full-sized configs, each in a folder of its own; none where the facts are not there."""
    found = []
    for name in PUBLISHED:
        file = FACTS / "configs" / f"{name}.json"
        if file.exists():
            (folder / name).mkdir()
            (folder / name / "config.json").write_text(file.read_text())
            found.append(str(folder / name))
    return found


def geometry_of(folder: Path, tensors: tuple[Tensor, ...] | None = None) -> Geometry:
    return read_geometry(json.loads((folder / "config.json").read_text()), tensors)


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_config_and_headers_give_the_bytes_that_vllm_allocates(
    name: str, tiny: Path, counted: dict[Case, dict[str, Any]]
) -> None:
    files = sorted((tiny / name).glob("*.safetensors"))
    tensors = tuple(one for file in files for one in read_tensors(file, file.name))
    by_config, by_headers = geometry_of(tiny / name), geometry_of(tiny / name, tensors)
    for case in cases_of(tiny, name):
        answer = counted[case]
        assert answer["problem"] is None, case
        slack = SLACK.get(name, 0) + (32 if case.is_expert else 0)
        for geometry in (by_config, by_headers):
            ours = weights_per_stage(geometry, case.parallel, None)[case.stage]
            assert abs(ours - answer["n_bytes"]) <= slack, (case, geometry.basis)


def test_published_configs_at_full_size(counted: dict[Case, dict[str, Any]]) -> None:
    seen = [case for case in counted if Path(case.folder).name in PUBLISHED]
    if not seen:
        pytest.skip("the folder of model facts is not beside this checkout")
    for case in seen:
        assert counted[case]["problem"] is None, case
        ours = weights_per_stage(geometry_of(Path(case.folder)), case.parallel, None)[0]
        # Eight bytes per layer of an FP8 checkpoint are let go after loading.
        assert abs(ours - counted[case]["n_bytes"]) <= 8 * 64, case


def test_latent_attention_is_unpacked_only_where_it_is_packed(
    tiny: Path, counted: dict[Case, dict[str, Any]]
) -> None:
    plain = counted[Case(str(tiny / "DeepseekV3ForCausalLM"), is_loaded=True)]
    assert plain["problem"] is None
    assert plain["absorbed_bytes"] == 0
    packed = counted[Case(str(tiny / "packed"), is_loaded=True)]
    assert packed["absorbed_bytes"] == 2 * 4 * (32 + 32) * 512 * 2
    ours = weights_per_stage(geometry_of(tiny / "packed"), Parallel(), None)[0]
    assert abs(ours - packed["n_bytes"] - packed["absorbed_bytes"]) <= 2 * 8
