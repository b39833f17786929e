"""MiniMax-Text-01 and MiniMax-M1 from their equations (arXiv:2501.08313), in torch, the whole sequence at once.

transformers' `minimax` rotates all values of a head and has its own slopes; the released checkpoints rotate a part, and
have ALiBi's. This is the reference for those. Where both are valid they must agree: make_minimax_text.py requires it.
"""

import math
import types

import torch
from torch import nn
from torch.nn import functional


def geometric_slopes(heads):
    return [2.0 ** (-8.0 * (head + 1) / heads) for head in range(heads)]


def alibi_slopes(heads):
    """As ALiBi's published code has it (arXiv:2108.12409): for powers of two one geometric series."""
    lower = 2 ** math.floor(math.log2(heads))
    if lower == heads:
        return geometric_slopes(heads)
    return geometric_slopes(lower) + alibi_slopes(2 * lower)[0::2][: heads - lower]


def released_slopes(heads, layer, layers):
    """Later layers forget less."""
    return [slope * (1 - layer / (layers - 1) + 1e-5) for slope in alibi_slopes(heads)]


def transformers_slopes(heads, layer, layers):
    return [slope * (1 - layer / (layers - 1 + 1e-5) + 1e-5) for slope in geometric_slopes(heads)]


class Norm(nn.Module):
    def __init__(self, width, eps):
        super().__init__()
        self.weight, self.eps = nn.Parameter(torch.ones(width)), eps

    def forward(self, x):
        return x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + self.eps) * self.weight


def linear(inputs, outputs):
    return nn.Linear(inputs, outputs, bias=False)


class Lightning(nn.Module):
    """o_t = Σ_{j ≤ t} (q_t · k_j) e^(-s(t - j)) v_j, for each head."""

    def __init__(self, config, layer):
        super().__init__()
        width = config.heads * config.head_dim
        self.qkv_proj, self.output_gate = linear(config.hidden, 3 * width), linear(config.hidden, width)
        self.out_proj, self.norm = linear(width, config.hidden), Norm(width, config.eps)
        self.heads, self.slopes = config.heads, config.slopes(config.heads, layer, config.layers)

    def forward(self, x):
        tokens = len(x)
        q, k, v = functional.silu(self.qkv_proj(x)).view(tokens, self.heads, -1).chunk(3, dim=-1)
        distance = torch.arange(tokens)[:, None] - torch.arange(tokens)
        answers = []
        for head, slope in enumerate(self.slopes):
            decay = torch.exp(-slope * distance.clamp(min=0)) * (distance >= 0)
            answers.append((q[:, head] @ k[:, head].T * decay) @ v[:, head])
        return self.out_proj(torch.sigmoid(self.output_gate(x)) * self.norm(torch.cat(answers, dim=-1)))


class Attention(nn.Module):
    """Grouped query heads; the first rotary_dim values of a head are rotated, i with i + rotary_dim / 2."""

    def __init__(self, config):
        super().__init__()
        self.config = config
        self.q_proj = linear(config.hidden, config.heads * config.head_dim)
        self.k_proj = linear(config.hidden, config.kv_heads * config.head_dim)
        self.v_proj = linear(config.hidden, config.kv_heads * config.head_dim)
        self.o_proj = linear(config.heads * config.head_dim, config.hidden)

    def forward(self, x):
        tokens, config = len(x), self.config
        q, k, v = (
            project(x).view(tokens, -1, config.head_dim).transpose(0, 1)
            for project in (self.q_proj, self.k_proj, self.v_proj)
        )
        q, k = self.rotate(q), self.rotate(k)
        k, v = (part.repeat_interleave(config.heads // config.kv_heads, dim=0) for part in (k, v))
        scores = q @ k.transpose(1, 2) / math.sqrt(config.head_dim)
        scores = scores.masked_fill(torch.ones(tokens, tokens).triu(1).bool(), float("-inf"))
        return self.o_proj((scores.softmax(-1) @ v).transpose(0, 1).reshape(tokens, -1))

    def rotate(self, x):
        rotary, theta = self.config.rotary_dim, self.config.rope_theta
        frequencies = 1.0 / theta ** (torch.arange(0, rotary, 2).float() / rotary)
        angles = torch.arange(x.shape[1]).float()[:, None] * frequencies
        low, high, rest = x.split([rotary // 2, rotary // 2, x.shape[-1] - rotary], dim=-1)
        cos, sin = angles.cos(), angles.sin()
        return torch.cat([low * cos - high * sin, high * cos + low * sin, rest], dim=-1)


class Router(nn.Module):
    """Softmax over all experts, the best of them renormalised to sum 1. The first of what it returns is its logits."""

    def __init__(self, config):
        super().__init__()
        self.weight, self.chosen = nn.Parameter(torch.zeros(config.experts, config.hidden)), config.chosen

    def forward(self, x):
        logits = x @ self.weight.T
        weights, experts = logits.softmax(-1).topk(self.chosen)
        return logits, weights / weights.sum(-1, keepdim=True), experts


class Expert(nn.Module):
    def __init__(self, config):
        super().__init__()
        self.w1, self.w3 = linear(config.hidden, config.intermediate), linear(config.hidden, config.intermediate)
        self.w2 = linear(config.intermediate, config.hidden)

    def forward(self, x):
        return self.w2(functional.silu(self.w1(x)) * self.w3(x))


class Experts(nn.Module):
    def __init__(self, config):
        super().__init__()
        self.gate = Router(config)
        self.experts = nn.ModuleList(Expert(config) for _ in range(config.experts))

    def forward(self, x):
        _, weights, experts = self.gate(x)
        rows = [
            sum(weight * self.experts[expert](token) for weight, expert in zip(*choice))
            for token, *choice in zip(x, weights, experts)
        ]
        return torch.stack(rows)


class Layer(nn.Module):
    """The residual is the normalised input, times α; the answer comes times β."""

    def __init__(self, config, layer):
        super().__init__()
        softmax = config.softmax_layers[layer]
        self.input_layernorm = Norm(config.hidden, config.eps)
        self.self_attn = Attention(config) if softmax else Lightning(config, layer)
        self.post_attention_layernorm = Norm(config.hidden, config.eps)
        self.block_sparse_moe = Experts(config)
        self.mixer_blend = config.softmax_blend if softmax else config.lightning_blend
        self.mlp_blend = config.mlp_blend

    def forward(self, x):
        h = self.input_layernorm(x)
        x = self.mixer_blend[0] * h + self.mixer_blend[1] * self.self_attn(h)
        h = self.post_attention_layernorm(x)
        return self.mlp_blend[0] * h + self.mlp_blend[1] * self.block_sparse_moe(h)


class Decoder(nn.Module):
    def __init__(self, config):
        super().__init__()
        self.embed_tokens = nn.Embedding(config.vocab_size, config.hidden)
        self.layers = nn.ModuleList(Layer(config, layer) for layer in range(config.layers))
        self.norm = Norm(config.hidden, config.eps)

    def forward(self, tokens):
        x = self.embed_tokens(tokens)
        for layer in self.layers:
            x = layer(x)
        return self.norm(x)


class MiniMaxText(nn.Module):
    """A model of the config that `read` makes. It takes one sequence, as a batch of one."""

    def __init__(self, config):
        super().__init__()
        self.config = config
        self.model = Decoder(config)
        if not config.tied:
            self.lm_head = linear(config.hidden, config.vocab_size)

    def forward(self, tokens, use_cache=False):
        head = self.model.embed_tokens if self.config.tied else self.lm_head
        return types.SimpleNamespace(logits=(self.model(tokens[0]) @ head.weight.T)[None])


def read(config, slopes):
    """Of the keys of a config.json in the released spelling, and the rule for slopes, what the modules above take."""
    blend = lambda part: [config[f"layernorm_{part}_{factor}"] for factor in ("alpha", "beta")]
    return types.SimpleNamespace(
        vocab_size=config["vocab_size"], hidden=config["hidden_size"], intermediate=config["intermediate_size"],
        layers=config["num_hidden_layers"], heads=config["num_attention_heads"],
        kv_heads=config["num_key_value_heads"], head_dim=config["head_dim"], experts=config["num_local_experts"],
        chosen=config["num_experts_per_tok"], num_experts_per_tok=config["num_experts_per_tok"],
        eps=config["rms_norm_eps"], rope_theta=config["rope_theta"], rotary_dim=config["rotary_dim"],
        tied=config["tie_word_embeddings"], softmax_layers=[kind == 1 for kind in config["attn_type_list"]],
        softmax_blend=blend("full_attention"), lightning_blend=blend("linear_attention"), mlp_blend=blend("mlp"),
        slopes=slopes, initializer_range=0.3,
    )
