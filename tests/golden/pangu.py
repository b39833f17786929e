"""Pangu Ultra MoE by its equations (arXiv:2505.04519, and the configuration of the released model), for want of a model
in HuggingFace transformers: DeepSeek-V3's attention and experts without groups, and a norm before and after each half
of a layer.
"""

import json
from types import SimpleNamespace

import torch
from safetensors.torch import save_file
from torch import nn

from reference import Family, fill

# The keys of the released model, and what DeepSeek calls them.
OWN = {
    "attention_q_lora_dim": "q_lora_rank",
    "attention_kv_lora_dim": "kv_lora_rank",
    "attention_qk_dim": "qk_nope_head_dim",
    "attention_qk_rope_dim": "qk_rope_head_dim",
    "attention_v_dim": "v_head_dim",
    "num_routed_experts": "n_routed_experts",
    "num_shared_experts": "n_shared_experts",
    "num_dense_layers": "first_k_dense_replace",
    "num_mtp_layers": "num_nextn_predict_layers",
}


def linear(inputs, outputs):
    return nn.Linear(inputs, outputs, bias=False)


class Norm(nn.Module):
    """x / √(mean x² + eps) · g"""

    def __init__(self, width, eps):
        super().__init__()
        self.weight, self.eps = nn.Parameter(torch.ones(width)), eps

    def forward(self, x):
        return x * (x.pow(2).mean(-1, keepdim=True) + self.eps).rsqrt() * self.weight


class Network(nn.Module):
    """W_down (silu(W_gate x) ⊙ W_up x)"""

    def __init__(self, hidden, width):
        super().__init__()
        self.gate_proj, self.up_proj, self.down_proj = linear(hidden, width), linear(hidden, width), linear(width, hidden)

    def forward(self, x):
        return self.down_proj(nn.functional.silu(self.gate_proj(x)) * self.up_proj(x))


def rotate(x, theta):
    """Turns the pairs (x₀, x₁), (x₂, x₃), … of `[heads, tokens, width]` by position · theta^(-i / pairs)."""
    pairs = x.shape[-1] // 2
    angles = torch.arange(x.shape[-2]).float()[:, None] * theta ** (-torch.arange(pairs).float() / pairs)
    even, odd = x[..., ::2], x[..., 1::2]
    turned = even * angles.cos() - odd * angles.sin(), odd * angles.cos() + even * angles.sin()
    return torch.stack(turned, dim=-1).flatten(-2)


class Attention(nn.Module):
    """c_q = norm(W_qa x); q = W_qb c_q; c, k_r = W_kva x; k, v = W_kvb norm(c). Every head has q = [q_n; rot(q_r)] and
    k = [k_n; rot(k_r)], k_r being one for all; the score is q · k / √width."""

    def __init__(self, c):
        super().__init__()
        self.c = c
        heads, width = c.num_attention_heads, c.qk_nope_head_dim + c.qk_rope_head_dim
        self.q_a_proj, self.q_b_proj = linear(c.hidden_size, c.q_lora_rank), linear(c.q_lora_rank, heads * width)
        self.q_a_layernorm = Norm(c.q_lora_rank, c.rms_norm_eps)
        self.kv_a_proj_with_mqa = linear(c.hidden_size, c.kv_lora_rank + c.qk_rope_head_dim)
        self.kv_a_layernorm = Norm(c.kv_lora_rank, c.rms_norm_eps)
        self.kv_b_proj = linear(c.kv_lora_rank, heads * (c.qk_nope_head_dim + c.v_head_dim))
        self.o_proj = linear(heads * c.v_head_dim, c.hidden_size)

    def forward(self, x):
        c, heads = self.c, self.c.num_attention_heads
        q = self.q_b_proj(self.q_a_layernorm(self.q_a_proj(x))).unflatten(-1, (heads, -1)).transpose(0, 1)
        q_n, q_r = q.split([c.qk_nope_head_dim, c.qk_rope_head_dim], dim=-1)
        latent, k_r = self.kv_a_proj_with_mqa(x).split([c.kv_lora_rank, c.qk_rope_head_dim], dim=-1)
        kv = self.kv_b_proj(self.kv_a_layernorm(latent)).unflatten(-1, (heads, -1)).transpose(0, 1)
        k_n, v = kv.split([c.qk_nope_head_dim, c.v_head_dim], dim=-1)
        q = torch.cat([q_n, rotate(q_r, c.rope_theta)], dim=-1)
        k = torch.cat([k_n, rotate(k_r[None], c.rope_theta).expand(heads, -1, -1)], dim=-1)
        scores = q @ k.transpose(1, 2) / q.shape[-1] ** 0.5
        scores = scores.masked_fill(torch.ones(len(x), len(x)).triu(1).bool(), float("-inf"))
        return self.o_proj((scores.softmax(-1) @ v).transpose(0, 1).flatten(1))


class Router(nn.Module):
    """The k experts of largest σ(W x) + b; weights are σ(W x) of the chosen over their sum, times the factor."""

    def __init__(self, c):
        super().__init__()
        self.c, self.weight = c, nn.Parameter(torch.zeros(c.n_routed_experts, c.hidden_size))
        if c.router_enable_expert_bias:
            self.e_score_correction_bias = nn.Parameter(torch.zeros(c.n_routed_experts))

    def by(self, logits):
        return logits.sigmoid() + (self.e_score_correction_bias if self.c.router_enable_expert_bias else 0)

    def forward(self, x):
        logits = x @ self.weight.T
        chosen = self.by(logits).topk(self.c.num_experts_per_tok).indices
        weights = logits.sigmoid().gather(-1, chosen)
        return logits, chosen, weights / (weights.sum(-1, keepdim=True) + 1e-20) * self.c.routed_scaling_factor


class Experts(nn.Module):
    def __init__(self, c):
        super().__init__()
        self.gate = Router(c)
        self.experts = nn.ModuleList(Network(c.hidden_size, c.moe_intermediate_size) for _ in range(c.n_routed_experts))
        self.shared_experts = Network(c.hidden_size, c.n_shared_experts * c.moe_intermediate_size)

    def forward(self, x):
        _, chosen, weights = self.gate(x)
        routed = [sum(w * self.experts[e](x) for e, w in zip(es.tolist(), ws)) for x, es, ws in zip(x, chosen, weights)]
        return torch.stack(routed) + self.shared_experts(x)


class Layer(nn.Module):
    def __init__(self, c, number):
        super().__init__()
        self.self_attn = Attention(c)
        dense = number < c.first_k_dense_replace
        self.mlp = Network(c.hidden_size, c.intermediate_size) if dense else Experts(c)
        self.input_layernorm, self.post_attention_layernorm, self.pre_mlp_layernorm, self.post_mlp_layernorm = (
            Norm(c.hidden_size, c.rms_norm_eps) for _ in range(4)
        )

    def forward(self, x):
        x = x + self.post_attention_layernorm(self.self_attn(self.input_layernorm(x)))
        return x + self.post_mlp_layernorm(self.mlp(self.pre_mlp_layernorm(x)))


class Model(nn.Module):
    def __init__(self, c):
        super().__init__()
        self.config, self.model = c, nn.Module()
        self.model.embed_tokens = nn.Embedding(c.vocab_size, c.hidden_size)
        self.model.layers = nn.ModuleList(Layer(c, number) for number in range(c.num_hidden_layers))
        self.model.norm = Norm(c.hidden_size, c.rms_norm_eps)
        self.lm_head = linear(c.hidden_size, c.vocab_size)

    def forward(self, tokens, use_cache=False):
        x = self.model.embed_tokens(tokens[0])
        for layer in self.model.layers:
            x = layer(x)
        return SimpleNamespace(logits=self.lm_head(self.model.norm(x))[None])


class Pangu(Family):
    name = "pangu_ultra_moe"
    cases = {
        # In the released model's own words.
        "plain": dict(
            seed=9000, spelling="own", hidden_size=48, num_hidden_layers=3, num_attention_heads=4, q_lora_rank=24,
            kv_lora_rank=16, qk_nope_head_dim=8, qk_rope_head_dim=8, v_head_dim=8, n_routed_experts=8,
            num_experts_per_tok=3, moe_intermediate_size=20, n_shared_experts=1, intermediate_size=40,
            first_k_dense_replace=1, num_nextn_predict_layers=0, routed_scaling_factor=2.5, rope_theta=25.6e6,
            router_enable_expert_bias=False, vocab_size=80, rms_norm_eps=1e-5,
        ),
        # In DeepSeek's, with a bias of the gate, odd sizes and an eps that is seen in every norm.
        "odd-heads": dict(
            seed=9200, spelling="deepseek", hidden_size=42, num_hidden_layers=3, num_attention_heads=5, q_lora_rank=26,
            kv_lora_rank=21, qk_nope_head_dim=7, qk_rope_head_dim=10, v_head_dim=19, n_routed_experts=9,
            num_experts_per_tok=2, moe_intermediate_size=18, n_shared_experts=2, intermediate_size=34,
            first_k_dense_replace=2, num_nextn_predict_layers=0, routed_scaling_factor=1.3, rope_theta=1e4,
            router_enable_expert_bias=True, vocab_size=67, rms_norm_eps=1e-2,
        ),
    }

    def make(self, folder, case, seed):
        shape = dict(self.cases[case])
        spelling = (shape.pop("seed"), shape.pop("spelling"))[1]
        model = Model(SimpleNamespace(**shape, initializer_range=0.3))
        fill(model, seed)
        state = {name: value.to(torch.bfloat16) for name, value in model.state_dict().items()}
        folder.mkdir(parents=True)
        save_file(state, folder / "model.safetensors", metadata={"format": "pt"})
        config = shape | {
            "architectures": ["PanguUltraMoEForCausalLM"], "model_type": "pangu_ultra_moe", "torch_dtype": "bfloat16",
            "max_position_embeddings": 256, "num_key_value_heads": shape["num_attention_heads"], "hidden_act": "silu",
            "bos_token_id": 1, "eos_token_id": 2, "tie_word_embeddings": False,
        }
        if spelling == "own":
            del config["router_enable_expert_bias"]
            config = config | {own: config.pop(deepseeks) for own, deepseeks in OWN.items()}
        else:
            config |= {"sandwich_norm": True, "norm_topk_prob": True}
        (folder / "config.json").write_text(json.dumps(config, indent=2, sort_keys=True) + "\n")
        model.load_state_dict({name: value.float() for name, value in state.items()})
        return model.eval()

    def gate_scores(self, gate, inputs, logits):
        return gate.by(logits)


PANGU = Pangu()
