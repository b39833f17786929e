"""Makes tiny random checkpoints of the families with grouped-query attention, and their golden log-probabilities.

    python make_grouped.py            writes <family>/<case>/ beside this file
    python make_grouped.py --check    makes them in a temporary folder and compares with the committed files
"""

import json

import torch
import transformers
from safetensors.torch import load_file, save_file

from reference import GATE_MARGIN, Family, fill, main


class Grouped(Family):
    """A family by its transformers classes; a case is its configuration, and how it is to be written."""

    def __init__(self, name, config, model, cases, correction=None, groups=None):
        self.name, self.config, self.model, self.cases = name, config, model, cases
        self.correction, self.group_keys = correction, groups
        if correction:
            # A sigmoid is nowhere steeper than a quarter.
            self.gate_margin = GATE_MARGIN / 4

    def make(self, folder, case, seed):
        shape = dict(self.cases[case])
        del shape["seed"]
        layout = {key: shape.pop(key, False) for key in ("old_config", "fused", "mxfp4")}
        rope = {"rope_type": "default"} | shape.pop("rope")
        config = self.config(
            **shape, rope_parameters=rope, initializer_range=0.3, max_position_embeddings=256,
            bos_token_id=1, eos_token_id=2, pad_token_id=None,
        )
        model = self.model(config).to(torch.bfloat16)
        fill(model, seed)
        if layout["mxfp4"]:
            save_as_mxfp4(model, folder)
        else:
            model.save_pretrained(folder, save_original_format=not layout["fused"])
        (folder / "generation_config.json").unlink(missing_ok=True)
        if layout["old_config"]:
            write_old_config(folder / "config.json")
        # A model of its own: in the other, the angles of the rotary embedding were rounded to bf16, too.
        reference = self.model(config).float().eval()
        reference.load_state_dict(model.state_dict())
        reference.set_attn_implementation("eager")
        reference.set_experts_implementation("eager")
        return reference

    def gate_scores(self, gate, inputs, logits):
        if self.correction is None:
            return logits
        return logits.sigmoid() + self.correction(gate, inputs)

    def groups(self, config):
        return (config.n_group, config.topk_group) if self.group_keys else (1, 1)


def write_old_config(path):
    """The spelling before transformers 5: rope_theta, rope_scaling and torch_dtype at the top level."""
    config = json.loads(path.read_text())
    rope = config.pop("rope_parameters")
    config["rope_theta"] = rope.pop("rope_theta")
    if "partial_rotary_factor" in rope:
        config["partial_rotary_factor"] = rope.pop("partial_rotary_factor")
    config["rope_scaling"] = rope if rope["rope_type"] != "default" else None
    config["torch_dtype"] = config.pop("dtype")
    if "num_local_experts" in config:
        config["num_experts"] = config.pop("num_local_experts")
    config["transformers_version"] = "4.57.0"
    path.write_text(json.dumps(config, indent=2, sort_keys=True) + "\n")


# The sixteen values of e2m1, by their four bits.
E2M1 = torch.tensor([0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0, -0.0, -0.5, -1.0, -1.5, -2.0, -3.0, -4.0, -6.0])


def save_as_mxfp4(model, folder):
    """Rounds the experts to e2m1 with a power of two for every 32 inputs, and writes them as the released models do."""
    packed = {}
    for name, parameter in model.named_parameters():
        if name.endswith(("experts.gate_up_proj", "experts.down_proj")):
            # In memory [experts, in, out]; packed [experts, out, in / 32, 16] and [experts, out, in / 32].
            values = parameter.data.float().transpose(1, 2)
            values = values.unflatten(-1, (-1, 32))
            exponent = (values.abs().amax(-1, keepdim=True) / 6).log2().ceil()
            bits = (values / exponent.exp2()).unsqueeze(-1).sub(E2M1).abs().argmin(-1)
            rounded = E2M1[bits] * exponent.exp2()
            parameter.data.copy_(rounded.flatten(2).transpose(1, 2))
            packed[f"{name}_blocks"] = (bits[..., 0::2] | bits[..., 1::2] << 4).to(torch.uint8)
            packed[f"{name}_scales"] = (exponent.squeeze(-1) + 127).to(torch.uint8)
    model.save_pretrained(folder)
    tensors = load_file(folder / "model.safetensors")
    for name in packed:
        tensors.pop(name.rsplit("_", 1)[0], None)
    save_file({name: tensor.contiguous() for name, tensor in (tensors | packed).items()},
              folder / "model.safetensors", metadata={"format": "pt"})
    config = json.loads((folder / "config.json").read_text())
    config["quantization_config"] = {
        "modules_to_not_convert": ["model.layers.*.self_attn", "model.layers.*.mlp.router", "model.embed_tokens", "lm_head"],
        "quant_method": "mxfp4",
    }
    (folder / "config.json").write_text(json.dumps(config, indent=2, sort_keys=True) + "\n")


QWEN3 = Grouped(
    "qwen3_moe", transformers.Qwen3MoeConfig, transformers.Qwen3MoeForCausalLM,
    {
        "plain": dict(
            seed=1000, hidden_size=48, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2, head_dim=16,
            num_experts=6, num_experts_per_tok=2, moe_intermediate_size=24, intermediate_size=40, norm_topk_prob=True,
            vocab_size=80, rope={"rope_theta": 1e4}, rms_norm_eps=1e-6, tie_word_embeddings=False,
        ),
        # Layers 0, 2, 3 and 4 are dense; biases everywhere; weights not renormalised; 5 heads over 1.
        "dense-layers": dict(
            seed=1200, hidden_size=36, num_hidden_layers=6, num_attention_heads=5, num_key_value_heads=1, head_dim=14,
            num_experts=7, num_experts_per_tok=3, moe_intermediate_size=20, intermediate_size=44, norm_topk_prob=False,
            mlp_only_layers=[3], decoder_sparse_step=2, attention_bias=True, vocab_size=67,
            rope={"rope_theta": 1e6}, rms_norm_eps=1e-2, tie_word_embeddings=True, old_config=True,
        ),
        # The long-context recipe of the released models, and all experts in one tensor.
        "yarn-fused": dict(
            seed=1400, hidden_size=40, num_hidden_layers=2, num_attention_heads=6, num_key_value_heads=3, head_dim=32,
            num_experts=5, num_experts_per_tok=2, moe_intermediate_size=28, intermediate_size=40, norm_topk_prob=True,
            vocab_size=71, rms_norm_eps=1e-6, tie_word_embeddings=False, fused=True,
            rope={"rope_theta": 5e3, "rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 32},
        ),
    },
)

QWEN2 = Grouped(
    "qwen2_moe", transformers.Qwen2MoeConfig, transformers.Qwen2MoeForCausalLM,
    {
        "plain": dict(
            seed=2000, hidden_size=48, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2, num_experts=6,
            num_experts_per_tok=2, moe_intermediate_size=24, shared_expert_intermediate_size=36, intermediate_size=40,
            vocab_size=80, rope={"rope_theta": 1e6}, rms_norm_eps=1e-6, tie_word_embeddings=False,
        ),
        "odd-heads": dict(
            seed=2200, hidden_size=42, num_hidden_layers=3, num_attention_heads=3, num_key_value_heads=1, num_experts=9,
            num_experts_per_tok=4, moe_intermediate_size=18, shared_expert_intermediate_size=26, intermediate_size=50,
            norm_topk_prob=True, mlp_only_layers=[1], vocab_size=67, rope={"rope_theta": 2e4}, rms_norm_eps=1e-5,
            tie_word_embeddings=True, old_config=True,
        ),
        "no-bias-fused": dict(
            seed=2400, hidden_size=56, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=4, num_experts=5,
            num_experts_per_tok=2, moe_intermediate_size=22, shared_expert_intermediate_size=30, intermediate_size=34,
            qkv_bias=False, decoder_sparse_step=2, vocab_size=71, rope={"rope_theta": 1e4}, rms_norm_eps=5e-2,
            tie_word_embeddings=False, fused=True,
        ),
    },
)

OLMOE = Grouped(
    "olmoe", transformers.OlmoeConfig, transformers.OlmoeForCausalLM,
    {
        "plain": dict(
            seed=3000, hidden_size=48, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=4, num_experts=10,
            num_experts_per_tok=4, intermediate_size=24, vocab_size=80, rope={"rope_theta": 1e4}, rms_norm_eps=1e-5,
            tie_word_embeddings=False,
        ),
        "odd-heads": dict(
            seed=3200, hidden_size=42, num_hidden_layers=3, num_attention_heads=3, num_key_value_heads=1, num_experts=7,
            num_experts_per_tok=2, intermediate_size=26, norm_topk_prob=True, vocab_size=67, rope={"rope_theta": 5e5},
            rms_norm_eps=1e-6, tie_word_embeddings=True, old_config=True,
        ),
        "bias-fused": dict(
            seed=3400, hidden_size=60, num_hidden_layers=2, num_attention_heads=6, num_key_value_heads=2, num_experts=5,
            num_experts_per_tok=3, intermediate_size=22, attention_bias=True, vocab_size=71, rope={"rope_theta": 1e4},
            rms_norm_eps=5e-2, tie_word_embeddings=False, fused=True,
        ),
    },
)

GLM4 = Grouped(
    "glm4_moe", transformers.Glm4MoeConfig, transformers.Glm4MoeForCausalLM,
    {
        # As GLM-4.5: one dense layer first, norms on heads, half of each head rotated, one group.
        "plain": dict(
            seed=4000, hidden_size=48, num_hidden_layers=3, num_attention_heads=6, num_key_value_heads=2, head_dim=16,
            n_routed_experts=6, num_experts_per_tok=2, moe_intermediate_size=24, intermediate_size=40, n_shared_experts=1,
            first_k_dense_replace=1, use_qk_norm=True, attention_bias=True, routed_scaling_factor=2.5, vocab_size=80,
            rope={"rope_theta": 1e6, "partial_rotary_factor": 0.5}, rms_norm_eps=1e-5, tie_word_embeddings=False,
        ),
        # Two of four groups of three, weights as they are, two shared experts in one.
        "groups": dict(
            seed=4200, hidden_size=36, num_hidden_layers=3, num_attention_heads=5, num_key_value_heads=1, head_dim=12,
            n_routed_experts=12, num_experts_per_tok=4, moe_intermediate_size=14, intermediate_size=44, n_shared_experts=2,
            n_group=4, topk_group=2, first_k_dense_replace=2, norm_topk_prob=False, routed_scaling_factor=0.7,
            vocab_size=67, rope={"rope_theta": 1e4, "partial_rotary_factor": 0.5}, rms_norm_eps=1e-6,
            tie_word_embeddings=True, old_config=True,
        ),
        # No dense layer, and experts in one tensor.
        "fused": dict(
            seed=4400, hidden_size=40, num_hidden_layers=2, num_attention_heads=3, num_key_value_heads=3, head_dim=20,
            n_routed_experts=9, num_experts_per_tok=2, moe_intermediate_size=22, intermediate_size=30, n_shared_experts=1,
            n_group=3, topk_group=1, first_k_dense_replace=0, use_qk_norm=True, routed_scaling_factor=1.0, vocab_size=71,
            rope={"rope_theta": 1e4, "partial_rotary_factor": 0.7}, rms_norm_eps=5e-2, tie_word_embeddings=False,
            fused=True,
        ),
    },
    correction=lambda gate, _: gate.e_score_correction_bias, groups=True,
)

MINIMAX_M2 = Grouped(
    "minimax_m2", transformers.MiniMaxM2Config, transformers.MiniMaxM2ForCausalLM,
    {
        "plain": dict(
            seed=5000, hidden_size=48, num_hidden_layers=2, num_attention_heads=6, num_key_value_heads=2, head_dim=16,
            num_local_experts=6, num_experts_per_tok=2, intermediate_size=24, vocab_size=80,
            rope={"rope_theta": 5e6, "partial_rotary_factor": 0.5}, rms_norm_eps=1e-6, tie_word_embeddings=False,
        ),
        "odd-heads": dict(
            seed=5200, hidden_size=36, num_hidden_layers=3, num_attention_heads=5, num_key_value_heads=1, head_dim=12,
            num_local_experts=9, num_experts_per_tok=4, intermediate_size=18, vocab_size=67,
            rope={"rope_theta": 1e4, "partial_rotary_factor": 0.5}, rms_norm_eps=1e-5, tie_word_embeddings=True,
            old_config=True,
        ),
        "fused": dict(
            seed=5400, hidden_size=40, num_hidden_layers=2, num_attention_heads=3, num_key_value_heads=3, head_dim=20,
            num_local_experts=5, num_experts_per_tok=3, intermediate_size=22, vocab_size=71, rope={"rope_theta": 1e4},
            rms_norm_eps=5e-2, tie_word_embeddings=False, fused=True,
        ),
    },
    correction=lambda _, inputs: inputs[1],
)

YARN = {"rope_type": "yarn", "factor": 8.0, "beta_fast": 32.0, "beta_slow": 1.0, "truncate": False,
        "original_max_position_embeddings": 32}
GPT_OSS = Grouped(
    "gpt_oss", transformers.GptOssConfig, transformers.GptOssForCausalLM,
    {
        # A window that is no multiple of a block.
        "plain": dict(
            seed=6000, hidden_size=48, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2, head_dim=16,
            num_local_experts=6, num_experts_per_tok=2, intermediate_size=24, sliding_window=11, vocab_size=80,
            rope=YARN | {"rope_theta": 1.5e5}, rms_norm_eps=1e-5, tie_word_embeddings=False,
        ),
        # A window of one block, which layers have it being named, and clamps that are reached often.
        "odd-heads": dict(
            seed=6200, hidden_size=36, num_hidden_layers=3, num_attention_heads=5, num_key_value_heads=1, head_dim=14,
            num_local_experts=7, num_experts_per_tok=3, intermediate_size=22, sliding_window=16,
            layer_types=["full_attention", "sliding_attention", "sliding_attention"], swiglu_limit=0.5, vocab_size=67,
            rope=YARN | {"rope_theta": 1e4, "truncate": True}, rms_norm_eps=1e-2, tie_word_embeddings=True,
        ),
        # Experts as the released models have them; a window of a single token.
        "mxfp4": dict(
            seed=6400, hidden_size=64, num_hidden_layers=2, num_attention_heads=2, num_key_value_heads=2, head_dim=20,
            num_local_experts=5, num_experts_per_tok=4, intermediate_size=32, sliding_window=1, vocab_size=71,
            rope=YARN | {"rope_theta": 1.5e5}, rms_norm_eps=1e-5, tie_word_embeddings=False, mxfp4=True,
        ),
    },
)

if __name__ == "__main__":
    main(__doc__, QWEN3, QWEN2, OLMOE, GLM4, MINIMAX_M2, GPT_OSS)
