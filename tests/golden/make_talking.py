"""Makes talking.json: what HuggingFace transformers answers with the talking model.

    cargo xtask model DIR
    python make_talking.py DIR            writes talking.json beside this file
    python make_talking.py DIR --check    computes it again and compares

The format is described in README.md. Before anything is written the model is compared with a dense llama made of its
first expert: sparse upcycling must not change what the model says.
"""

import argparse
import json
import pathlib
import sys

import torch
import transformers

HERE = pathlib.Path(__file__).resolve().parent
NEW_TOKENS = 40
TOP = 5
# Log-probabilities on another CPU, and of the dense model: another order of summation over 30 layers.
TOLERANCE = 1e-3

PASSAGE = (
    "A lighthouse keeper named Ada lived on a small island with her grey cat, Pepper. Every evening she climbed the "
    "one hundred and twelve steps of the tower, cleaned the glass, and lit the lamp. Ships passed far out at sea, and "
    "their captains knew that the light meant rocks to the north and a safe harbour to the south. One winter night a "
    "storm broke the window of the lamp room. Ada held a blanket against the wind until morning, and the lamp did not "
    "go out. In the spring the captains came to the island with a new pane of glass, a barrel of oil, and a bell for "
    "the cat."
)
PROMPTS = {
    "capital": [{"role": "user", "content": "What is the capital of France?"}],
    "sum": [{"role": "user", "content": "What is 12 plus 30?"}],
    "turns": [
        {"role": "system", "content": "You answer in one short sentence."},
        {"role": "user", "content": "What is the capital of Italy?"},
        {"role": "assistant", "content": "The capital of Italy is Rome."},
        {"role": "user", "content": "And of Spain?"},
    ],
    "passage": [{"role": "user", "content": PASSAGE + "\n\nRepeat the first sentence."}],
    "code": [{"role": "user", "content": "Write a Python function `add(a, b)` that returns the sum.\n\tNo comments."}],
    "unicode": [{"role": "user", "content": "Translate to English: «¿Dónde está la biblioteca?» 你好 😀"}],
    # Not a conversation: text to be continued, without the chat template.
    "completion": "The first ten letters of the alphabet are a, b, c,",
}


def main():
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    arguments.add_argument("model", type=pathlib.Path, help="the folder that `cargo xtask model` wrote")
    arguments.add_argument("--check", action="store_true", help="compare with the committed file; write nothing")
    arguments = arguments.parse_args()
    torch.set_num_threads(1)
    transformers.utils.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    tokenizer = transformers.AutoTokenizer.from_pretrained(arguments.model)
    model = transformers.AutoModelForCausalLM.from_pretrained(
        arguments.model, dtype=torch.float32, attn_implementation="eager", experts_implementation="eager"
    ).eval()
    prompts = [answer(model, tokenizer, name, content) for name, content in PROMPTS.items()]
    golden = {
        "format": 1,
        "recipe": json.loads((arguments.model / "model.safetensors.index.json").read_text())["metadata"]["recipe"],
        "transformers": transformers.__version__,
        "torch": torch.__version__.split("+")[0],
        "prompts": prompts,
    }
    compare_dense(model, prompts)
    path = HERE / "talking.json"
    if arguments.check:
        sys.exit(compare(golden, json.loads(path.read_text())))
    path.write_text(json.dumps(golden, ensure_ascii=False) + "\n")


@torch.no_grad()
def answer(model, tokenizer, name, content):
    """One prompt: its tokens, the greedy continuation, and what else was likely at each step."""
    chat = isinstance(content, list)
    prompt = tokenizer.apply_chat_template(content, add_generation_prompt=True, tokenize=False) if chat else content
    tokens = tokenizer(prompt)["input_ids"]
    out = model(torch.tensor([tokens]), use_cache=True)
    logprobs = out.logits[0].log_softmax(-1)
    following = torch.tensor(tokens[1:])[:, None]
    prompt_logprobs = logprobs[:-1].gather(-1, following)[:, 0]
    greedy, top = [], []
    for _ in range(NEW_TOKENS):
        best = logprobs[-1].topk(TOP)
        greedy.append(int(best.indices[0]))
        top.append([[token, rounded(value)] for token, value in zip(best.indices.tolist(), best.values.tolist())])
        if greedy[-1] in model.generation_config.eos_token_id:
            break
        out = model(torch.tensor([greedy[-1:]]), past_key_values=out.past_key_values, use_cache=True)
        logprobs = out.logits[0].log_softmax(-1)
    stopped = greedy[-1] in model.generation_config.eos_token_id
    margin = min(step[0][1] - step[1][1] for step in top)
    text = tokenizer.decode(greedy[: -1 if stopped else None], clean_up_tokenization_spaces=False)
    print(f"{name}: {len(tokens)} + {len(greedy)} tokens, margin {margin:.3f}: {text!r}", flush=True)
    return {
        "name": name,
        **({"messages": content} if chat else {}),
        "prompt": prompt,
        "tokens": tokens,
        "prompt_logprobs": [rounded(value) for value in prompt_logprobs.tolist()],
        "greedy": greedy,
        "text": text,
        "finish_reason": "stop" if stopped else "length",
        "margin": rounded(margin),
        "top": top,
    }


def rounded(value):
    return round(value, 5)


@torch.no_grad()
def compare_dense(model, prompts):
    """Exits unless a dense llama with the first expert as its feed-forward says the same."""
    config = transformers.LlamaConfig(
        **{
            key: getattr(model.config, key)
            for key in (
                "vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads",
                "num_key_value_heads", "head_dim", "max_position_embeddings", "rms_norm_eps", "rope_parameters",
                "tie_word_embeddings",
            )
        },
        attn_implementation="eager",
    )
    weights = {}
    for name, tensor in model.state_dict().items():
        if name.endswith("mlp.experts.gate_up_proj"):
            layer = name.removesuffix("experts.gate_up_proj")
            weights[layer + "gate_proj.weight"], weights[layer + "up_proj.weight"] = tensor[0].chunk(2)
        elif name.endswith("mlp.experts.down_proj"):
            weights[name.removesuffix("experts.down_proj") + "down_proj.weight"] = tensor[0]
        elif not name.endswith("mlp.gate.weight"):
            weights[name] = tensor
    dense = transformers.LlamaForCausalLM(config).eval()
    dense.load_state_dict(weights)
    for prompt in prompts:
        tokens = torch.tensor([prompt["tokens"] + prompt["greedy"]])
        off = float((dense(tokens).logits.log_softmax(-1) - model(tokens).logits.log_softmax(-1)).abs().max())
        if off > TOLERANCE:
            sys.exit(f"{prompt['name']}: the dense model's log-probabilities are off by {off:.1e}")
    print("the dense model of expert 0 says the same")


def compare(made, committed):
    """Prints each difference; 0 if there is none."""
    problems = [key for key in made if key != "prompts" and made[key] != committed.get(key)]
    for ours, theirs in zip(made["prompts"], committed["prompts"], strict=True):
        for key in ours:
            left, right = ours[key], theirs[key]
            if not (near(left, right) if key in ("prompt_logprobs", "margin", "top") else left == right):
                problems.append(f"{ours['name']}.{key}")
    print("differs: " + ", ".join(problems) if problems else f"{len(made['prompts'])} prompts as committed")
    return 1 if problems else 0


def near(ours, theirs):
    if isinstance(ours, list):
        return len(ours) == len(theirs) and all(near(left, right) for left, right in zip(ours, theirs))
    return abs(ours - theirs) <= TOLERANCE


if __name__ == "__main__":
    main()
