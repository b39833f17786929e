"""What all scripts here have in common: prompts, golden log-probabilities by a reference model, files, comparison.

A script defines a Family and calls main() with it. Weights come from numpy's PCG64 stream, not from torch's, so that
they do not depend on the CPU. The format of the files is described in README.md.
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


class NearTie(Exception):
    """The reference came too near to a tie for this seed."""


class Family:
    """A family's cases; each is a dict with at least a `seed`, the first that is tried."""

    name: str
    cases: dict
    # How near to another choice a gate's scores may come.
    gate_margin = GATE_MARGIN

    def make(self, folder, case, seed):
        """Writes the model folder of a case and returns the model that reads it."""
        raise NotImplementedError

    def gate_scores(self, gate, inputs, logits):
        """Those by which a gate chooses from its logits, `[rows, experts]`, a better one being larger."""
        return logits

    def more(self, model, tokens):
        """Further golden tensors of a prompt, by name."""
        return {}

    def group_scores(self, grouped):
        """Those by which groups are chosen from scores `[rows, groups, experts of a group]`."""
        return grouped.topk(2, dim=-1).values.sum(-1)

    def groups(self, config):
        """How many groups of experts there are, and how many of them a token may use."""
        return 1, 1


def main(description, *families):
    arguments = argparse.ArgumentParser(description=description.splitlines()[0])
    arguments.add_argument("--check", action="store_true", help="compare with the committed files; write nothing")
    check = arguments.parse_args().check
    torch.set_num_threads(1)
    transformers.utils.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    different = False
    with tempfile.TemporaryDirectory() as scratch:
        for family in families:
            made = pathlib.Path(scratch) / family.name
            for case in family.cases:
                make_case(family, made / case, case)
            if check:
                different |= compare(made, HERE / family.name)
            else:
                shutil.rmtree(HERE / family.name, ignore_errors=True)
                shutil.copytree(made, HERE / family.name)
    sys.exit(different)


def make_case(family, folder, case):
    first_seed = family.cases[case]["seed"]
    for seed in range(first_seed, first_seed + SEEDS):
        shutil.rmtree(folder, ignore_errors=True)
        model = family.make(folder, case, seed)
        try:
            prompts, tensors = evaluate(family, model, seed)
            break
        except NearTie:
            continue
    else:
        sys.exit(f"{family.name} {case}: no seed in {first_seed}..{first_seed + SEEDS} keeps clear of ties")
    golden = {
        "format": 1,
        "family": family.name,
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
    print(f"{family.name} {case}: seed {seed}, {size} bytes", flush=True)


def fill(model, seed):
    """Random weights, norm gains around 1."""
    stream = numpy.random.Generator(numpy.random.PCG64(seed))
    tensors = dict(model.named_parameters())
    tensors |= {name: buffer for name, buffer in model.named_buffers() if name in model.state_dict()}
    for name, tensor in sorted(tensors.items()):
        values = model.config.initializer_range * stream.standard_normal(tuple(tensor.shape), dtype=numpy.float64)
        if name.endswith("norm.weight"):
            values = 1.0 + values
        tensor.data.copy_(torch.from_numpy(values.astype(numpy.float32)))


def evaluate(family, model, seed):
    """Golden values of every prompt."""
    prompts, tensors = [], {}
    gates = Gates(family, model)
    for index, tokens in enumerate(make_prompts(model.config.vocab_size, seed)):
        prompt_logprobs = score(model, tokens, gates)
        sequence = list(tokens)
        for _ in range(GREEDY):
            logprobs = score(model, sequence, gates)
            best = logprobs[-1].topk(2)
            if best.values[0] - best.values[1] < GREEDY_MARGIN:
                raise NearTie
            sequence.append(int(best.indices[0]))
        tensors[f"{index}.logprobs"] = prompt_logprobs
        tensors |= {f"{index}.{name}": values for name, values in family.more(model, tokens).items()}
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
def score(model, tokens, gates):
    """log_softmax at each position, f32 [tokens, vocabulary]."""
    out = model(torch.tensor([tokens]), use_cache=False)
    gates.check()
    return out.logits[0].float().log_softmax(-1)


class Gates:
    """Watches a model's gates, and knows how near to another choice they came."""

    def __init__(self, family, model):
        self.family, self.model, self.seen = family, model, []
        routers = [module for module in model.modules() if type(module).__name__.lower().endswith("router")]
        for router in routers:
            router.register_forward_hook(lambda gate, inputs, out: self.seen.append((gate, inputs, out[0].float())))

    def check(self):
        """Raises NearTie if the last forward pass came too near."""
        chosen = self.model.config.num_experts_per_tok
        groups, kept = self.family.groups(self.model.config)
        if not self.seen:
            sys.exit(f"{self.family.name}: the model has no gate that could be watched")
        for gate, inputs, logits in self.seen:
            scores = self.family.gate_scores(gate, inputs, logits)
            if kept < groups:
                grouped = scores.view(len(scores), groups, -1)
                best = self.family.group_scores(grouped)
                ranked = best.sort(-1, descending=True)
                near(ranked.values, kept, self.family.gate_margin)
                mask = torch.ones_like(best).scatter(1, ranked.indices[:, :kept], 0).bool()
                scores = grouped.masked_fill(mask.unsqueeze(-1), float("-inf")).flatten(1)
            near(scores.sort(-1, descending=True).values, chosen, self.family.gate_margin)
        self.seen.clear()


def near(ranked, chosen, margin):
    if chosen < ranked.shape[-1] and (ranked[:, chosen - 1] - ranked[:, chosen]).min() < margin:
        raise NearTie


def compare(made, committed):
    """Prints each difference; whether there is any."""
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
    print("\n".join(problems) if problems else f"{committed.name}: {len(names)} files as committed")
    return bool(problems)
