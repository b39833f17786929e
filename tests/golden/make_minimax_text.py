"""Makes tiny random MiniMax-Text-01 and M1 checkpoints and their golden log-probabilities.

    python make_minimax_text.py            writes minimax_text/<case>/ beside this file
    python make_minimax_text.py --check    makes them in a temporary folder and compares with the committed files

Cases in transformers' spelling are evaluated by transformers, those in the released spelling by the equations in
minimax_text.py. Both are compared with the equations in f64.
"""

import copy
import json

import torch
import transformers
from safetensors.torch import save_file
from torch import nn

from minimax_text import MiniMaxText, read, released_slopes, transformers_slopes
from reference import Family, NearTie, fill, main

# How far the model may be from the equations in f64, in logits. A norm behind a sum that nearly cancels makes f32 noise
# large: a seed with such a row is passed over, like one with a near tie. A mistake is seen with every seed.
EXACT = 3e-4

CASES = {
    # transformers: all values of a head are rotated; every weight of the residual is another.
    "plain": dict(
        seed=100, architecture="MiniMaxForCausalLM", hidden_size=32, intermediate_size=16, num_attention_heads=4,
        num_key_value_heads=2, head_dim=16, num_local_experts=4, num_experts_per_tok=2, vocab_size=64,
        rope_theta=1e4, rms_norm_eps=1e-5, tie_word_embeddings=False, attn_type_list=[0, 0, 1, 0],
        factors=[2.2, 0.9, 2.6, 1.1, 1.8, 0.7],
    ),
    # transformers: 5 heads, so that its slopes are not ALiBi's; fused experts; blocks of 16 in its own loop.
    "odd-heads": dict(
        seed=200, architecture="MiniMaxForCausalLM", hidden_size=40, intermediate_size=10, num_attention_heads=5,
        num_key_value_heads=1, head_dim=12, num_local_experts=6, num_experts_per_tok=3, vocab_size=67,
        rope_theta=1e6, rms_norm_eps=1e-6, tie_word_embeddings=True, attn_type_list=[1, 0, 0],
        factors=[2.1, 1.0, 1.9, 1.0, 2.3, 1.0], block_size=16, fused=True,
    ),
    # Released: rotated in part, ALiBi's slopes for 6 heads, the released weights of the residual.
    "released": dict(
        seed=300, architecture="MiniMaxText01ForCausalLM", hidden_size=36, intermediate_size=14,
        num_attention_heads=6, num_key_value_heads=2, head_dim=10, num_local_experts=4, num_experts_per_tok=2,
        vocab_size=71, rope_theta=1e7, rms_norm_eps=1e-5, tie_word_embeddings=False, attn_type_list=[0, 0, 1, 0],
        factors=[3.5565588200778455, 1.0] * 3, rotary_dim=6,
    ),
    # Released: 3 heads of a width that is no multiple of 16 and more than it, rotated whole; lightning first and last.
    "m1": dict(
        seed=400, architecture="MiniMaxM1ForCausalLM", hidden_size=32, intermediate_size=12, num_attention_heads=3,
        num_key_value_heads=3, head_dim=34, num_local_experts=5, num_experts_per_tok=2, vocab_size=59,
        rope_theta=1e4, rms_norm_eps=1e-5, tie_word_embeddings=True, attn_type_list=[0, 1, 0],
        factors=[1.5, 1.0, 2.5, 0.7, 3.0, 0.5], rotary_dim=34,
    ),
}

FACTORS = [f"layernorm_{part}_{factor}" for part in ("full_attention", "linear_attention", "mlp")
           for factor in ("alpha", "beta")]


class MiniMax(Family):
    name = "minimax_text"
    cases = CASES

    def make(self, folder, case, seed):
        shape = dict(CASES[case])
        del shape["seed"]
        shape |= dict(zip(FACTORS, shape.pop("factors")))
        shape |= dict(num_hidden_layers=len(shape["attn_type_list"]), max_position_embeddings=256)
        shape.setdefault("rotary_dim", shape["head_dim"])
        if shape.pop("architecture") == "MiniMaxForCausalLM":
            return make_by_transformers(folder, shape, seed)
        return make_by_equations(folder, shape, CASES[case]["architecture"], seed)


def make_by_equations(folder, shape, architecture, seed):
    """A checkpoint in the released spelling."""
    model = MiniMaxText(read(shape, released_slopes)).to(torch.bfloat16)
    fill(model, seed)
    folder.mkdir(parents=True)
    save_file(dict(model.state_dict()), folder / "model.safetensors", metadata={"format": "pt"})
    config = dict(
        architectures=[architecture], eos_token_id=2, hidden_act="silu", postnorm=True,
        shared_intermediate_size=0, torch_dtype="bfloat16", **shape,
    )
    (folder / "config.json").write_text(json.dumps(config, indent=2, sort_keys=True) + "\n")
    return Checked(model.float().eval(), copy.deepcopy(model))


def make_by_transformers(folder, shape, seed):
    """A checkpoint that transformers saves."""
    fused, block_size = shape.get("fused", False), shape.get("block_size", 256)
    written = {key: value for key, value in shape.items() if key not in FACTORS}
    for key in ("attn_type_list", "rotary_dim", "rope_theta", "fused", "block_size"):
        written.pop(key, None)
    blends = dict(zip(["full_attn_alpha_factor", "full_attn_beta_factor", "linear_attn_alpha_factor",
                       "linear_attn_beta_factor", "mlp_alpha_factor", "mlp_beta_factor"],
                      (shape[key] for key in FACTORS)))
    kinds = ["full_attention" if kind == 1 else "linear_attention" for kind in shape["attn_type_list"]]
    config = transformers.MiniMaxConfig(
        **written, **blends, layer_types=kinds, block_size=block_size, initializer_range=0.3, bos_token_id=1,
        eos_token_id=2, rope_parameters={"rope_type": "default", "rope_theta": shape["rope_theta"]},
    )
    model = transformers.MiniMaxForCausalLM(config).to(torch.bfloat16)
    # Buffers are decays, which are no weights; they are made anew in f32 when the checkpoint is read.
    fill(model, seed)
    # Decays are computed. transformers would save them with the weights, and read them again rounded to bf16.
    weights = {name: tensor for name, tensor in model.state_dict().items() if not name.endswith(("_decay", "_rate"))}
    model.save_pretrained(folder, state_dict=weights, save_original_format=not fused)
    (folder / "generation_config.json").unlink(missing_ok=True)
    model = transformers.MiniMaxForCausalLM.from_pretrained(
        folder, dtype=torch.float32, attn_implementation="eager", experts_implementation="eager"
    ).eval()
    exact = MiniMaxText(read(shape, transformers_slopes))
    exact.load_state_dict(unfused(model))
    return Checked(model, exact)


class Checked(nn.Module):
    """A model, and the equations in f64 with the same weights, from which it must not part."""

    def __init__(self, model, exact):
        super().__init__()
        self.config, self.model, self.exact = model.config, model, exact.double().eval()

    def forward(self, tokens, use_cache=False):
        out = self.model(tokens, use_cache=use_cache)
        if not (out.logits - self.exact(tokens).logits).abs().max() < EXACT:
            raise NearTie
        return out


def unfused(model):
    """Weights as the equations call them: transformers has all experts of a layer in one."""
    weights = {}
    for name, tensor in model.named_parameters():
        layer, _, part = name.partition(".mlp.")
        experts = f"{layer}.block_sparse_moe.experts"
        if part == "experts.gate_up_proj":
            for expert, both in enumerate(tensor):
                w1, w3 = both.chunk(2)
                weights |= {f"{experts}.{expert}.w1.weight": w1, f"{experts}.{expert}.w3.weight": w3}
        elif part == "experts.down_proj":
            weights |= {f"{experts}.{expert}.w2.weight": w2 for expert, w2 in enumerate(tensor)}
        else:
            weights[name.replace(".mlp.", ".block_sparse_moe.")] = tensor
    return weights


if __name__ == "__main__":
    main(__doc__, MiniMax())
