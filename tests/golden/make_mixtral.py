"""Makes tiny random Mixtral checkpoints and their golden log-probabilities with HuggingFace transformers.

    python make_mixtral.py            writes mixtral/<case>/ beside this file
    python make_mixtral.py --check    makes them in a temporary folder and compares with the committed files

Weights come from numpy's PCG64 stream, not from torch's, so that they do not depend on the CPU. The format of the
files is described in README.md.
"""

import argparse
import json
import pathlib
import shutil
import sys
import tempfile

import numpy
import torch
import transformers
from safetensors.torch import load_file, save_file

HERE = pathlib.Path(__file__).resolve().parent
BLOCK = 16
GREEDY = 24
# A reference within float noise of a tie would test luck: a seed whose closest expert choice (gate logits) or greedy
# choice (log-probabilities) is nearer than this is passed over for the next one.
GATE_MARGIN = 1e-3
GREEDY_MARGIN = 1e-2
SEEDS = 200
# Another CPU sums in another order; everything but golden.safetensors must be equal to the byte.
CHECK_TOLERANCE = 1e-4

CASES = {
    # The plain shape: everything a power of two or nearly so.
    "plain": dict(
        seed=101, hidden_size=64, intermediate_size=96, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, num_local_experts=4, num_experts_per_tok=2, vocab_size=128, rope_theta=1e4,
        rms_norm_eps=1e-5, tie_word_embeddings=False,
    ),
    # 5 query heads share 1 KV head; head_dim is given and is not hidden/heads; nothing is a multiple of 16.
    "odd-heads": dict(
        seed=200, hidden_size=40, intermediate_size=52, num_hidden_layers=2, num_attention_heads=5,
        num_key_value_heads=1, head_dim=12, num_local_experts=8, num_experts_per_tok=2, vocab_size=101,
        rope_theta=1e5, rms_norm_eps=1e-6, tie_word_embeddings=True,
    ),
    # As many KV heads as query heads; 5 experts, top-3.
    "top-three": dict(
        seed=300, hidden_size=72, intermediate_size=36, num_hidden_layers=3, num_attention_heads=3,
        num_key_value_heads=3, num_local_experts=5, num_experts_per_tok=3, vocab_size=131, rope_theta=1e6,
        rms_norm_eps=1e-5, tie_word_embeddings=False,
    ),
    # Two shards, and a config.json of the older generation (rope_theta, torch_dtype).
    "sharded": dict(
        seed=400, hidden_size=48, intermediate_size=80, num_hidden_layers=3, num_attention_heads=6,
        num_key_value_heads=2, head_dim=20, num_local_experts=8, num_experts_per_tok=2, vocab_size=150,
        rope_theta=5e5, rms_norm_eps=1e-5, tie_word_embeddings=True, old_config=True, shards=2,
    ),
    # Expert tensors fused as transformers 5 holds them in memory; an eps large enough to be seen when ignored.
    "fused": dict(
        seed=500, hidden_size=56, intermediate_size=44, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=4, num_local_experts=4, num_experts_per_tok=2, vocab_size=90, rope_theta=2e4,
        rms_norm_eps=5e-2, tie_word_embeddings=False, fused=True,
    ),
}


def main():
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    arguments.add_argument("--check", action="store_true", help="compare with the committed files; write nothing")
    check = arguments.parse_args().check
    torch.set_num_threads(1)
    transformers.utils.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    with tempfile.TemporaryDirectory() as scratch:
        made = pathlib.Path(scratch)
        for case, shape in CASES.items():
            make_case(made / case, case, dict(shape))
        if check:
            sys.exit(compare(made, HERE / "mixtral"))
        shutil.rmtree(HERE / "mixtral", ignore_errors=True)
        shutil.copytree(made, HERE / "mixtral")


def make_case(folder, case, shape):
    first_seed = shape.pop("seed")
    layout = {key: shape.pop(key, default) for key, default in dict(old_config=False, shards=1, fused=False).items()}
    shape["rope_parameters"] = {"rope_type": "default", "rope_theta": shape.pop("rope_theta")}
    config = transformers.MixtralConfig(
        **shape, initializer_range=0.3, max_position_embeddings=256, bos_token_id=1, eos_token_id=2
    )
    for seed in range(first_seed, first_seed + SEEDS):
        shutil.rmtree(folder, ignore_errors=True)
        write_checkpoint(folder, config, seed, **layout)
        model = transformers.MixtralForCausalLM.from_pretrained(
            folder, dtype=torch.float32, attn_implementation="eager", experts_implementation="eager"
        ).eval()
        try:
            prompts, tensors = evaluate(model, seed)
            break
        except NearTie:
            continue
    else:
        sys.exit(f"{case}: no seed in {first_seed}..{first_seed + SEEDS} keeps clear of ties")
    golden = {
        "format": 1,
        "family": "mixtral",
        "case": case,
        "seed": seed,
        "transformers": transformers.__version__,
        "torch": torch.__version__.split("+")[0],
        "block": BLOCK,
        "prompts": prompts,
    }
    (folder / "golden.json").write_text(json.dumps(golden) + "\n")
    save_file(tensors, folder / "golden.safetensors")
    size = sum(file.stat().st_size for file in folder.iterdir())
    print(f"{case}: seed {seed}, {size} bytes", flush=True)


def write_checkpoint(folder, config, seed, old_config, shards, fused):
    """Random weights (norm gains around 1), rounded to bf16, saved by transformers."""
    model = transformers.MixtralForCausalLM(config).to(torch.bfloat16)
    stream = numpy.random.Generator(numpy.random.PCG64(seed))
    for name, parameter in sorted(model.named_parameters()):
        values = config.initializer_range * stream.standard_normal(tuple(parameter.shape), dtype=numpy.float64)
        if name.endswith("norm.weight"):
            values = 1.0 + values
        parameter.data.copy_(torch.from_numpy(values.astype(numpy.float32)))
    total = sum(parameter.numel() * 2 for parameter in model.parameters())
    limit = total if shards == 1 else total * 3 // 5
    model.save_pretrained(folder, max_shard_size=limit + 1, save_original_format=not fused)
    (folder / "generation_config.json").unlink(missing_ok=True)
    if len(list(folder.glob("model*.safetensors"))) != shards:
        sys.exit(f"{folder.name}: expected {shards} weight files")
    if old_config:
        write_old_config(folder / "config.json")


def write_old_config(path):
    """The spelling before transformers 5: rope_theta and torch_dtype at the top level."""
    config = json.loads(path.read_text())
    config["rope_theta"] = config.pop("rope_parameters")["rope_theta"]
    config["torch_dtype"] = config.pop("dtype")
    config["transformers_version"] = "4.57.0"
    path.write_text(json.dumps(config, indent=2, sort_keys=True) + "\n")


class NearTie(Exception):
    """The reference came too near to a tie for this seed."""


def evaluate(model, seed):
    """Golden values of every prompt."""
    prompts, tensors = [], {}
    for index, tokens in enumerate(make_prompts(model.config.vocab_size, seed)):
        prompt_logprobs = score(model, tokens)
        sequence = list(tokens)
        for _ in range(GREEDY):
            logprobs = score(model, sequence)
            best = logprobs[-1].topk(2)
            if best.values[0] - best.values[1] < GREEDY_MARGIN:
                raise NearTie
            sequence.append(int(best.indices[0]))
        tensors[f"{index}.logprobs"] = prompt_logprobs
        tensors[f"{index}.greedy_logprobs"] = logprobs[len(tokens) - 1 :].contiguous()
        prompts.append(
            {
                "tokens": tokens,
                "greedy": sequence[len(tokens) :],
                "logprobs": f"{index}.logprobs",
                "greedy_logprobs": f"{index}.greedy_logprobs",
            }
        )
    return prompts, tensors


def make_prompts(vocabulary, seed):
    """Lengths around a block's edges; the last prompt leaves the one before it after two blocks and a token."""
    stream = numpy.random.Generator(numpy.random.PCG64([seed, 1]))
    lengths = [1, BLOCK - 1, BLOCK, BLOCK + 1, 3 * BLOCK + 5]
    prompts = [stream.integers(0, vocabulary, length).tolist() for length in lengths]
    shared = 2 * BLOCK + 1
    prompts.append(prompts[-1][:shared] + stream.integers(0, vocabulary, 7).tolist())
    return prompts


@torch.no_grad()
def score(model, tokens):
    """log_softmax at each position, f32 [tokens, vocabulary]."""
    out = model(torch.tensor([tokens]), use_cache=False, output_router_logits=True)
    chosen = model.config.num_experts_per_tok
    for logits in out.router_logits:
        ranked = logits.float().sort(-1, descending=True).values
        if (ranked[:, chosen - 1] - ranked[:, chosen]).min() < GATE_MARGIN:
            raise NearTie
    return out.logits[0].float().log_softmax(-1)


def compare(made, committed):
    """Prints each difference; 0 if there is none."""
    names = {file.relative_to(root) for root in (made, committed) for file in root.rglob("*") if file.is_file()}
    problems = []
    for name in sorted(names):
        left, right = made / name, committed / name
        if not (left.exists() and right.exists()):
            problems.append(f"{name}: only {'made' if left.exists() else 'committed'}")
        elif name.name == "golden.safetensors":
            ours, theirs = load_file(left), load_file(right)
            if ours.keys() != theirs.keys():
                problems.append(f"{name}: other tensors")
                continue
            off = max(float((ours[key] - theirs[key]).abs().max()) for key in ours)
            if off > CHECK_TOLERANCE:
                problems.append(f"{name}: log-probabilities differ by up to {off:.1e}")
        elif left.read_bytes() != right.read_bytes():
            problems.append(f"{name}: differs")
    print("\n".join(problems) if problems else f"{len(names)} files as committed")
    return 1 if problems else 0


if __name__ == "__main__":
    main()
