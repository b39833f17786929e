"""Prefill and decode tokens/s of HuggingFace transformers on the talking model, as one JSON object.

The peer of `coterie bench`: the same folder, prompt length, tokens generated and threads; greedy, batch 1.
usage: python peer_transformers.py MODEL_DIR [--prompt-tokens 512] [--generate 64] [--runs 3] [--dtype bfloat16]
"""
import argparse
import json
import statistics
import time

import torch
import transformers

parser = argparse.ArgumentParser()
parser.add_argument("model")
parser.add_argument("--prompt-tokens", type=int, default=512)
parser.add_argument("--generate", type=int, default=64)
parser.add_argument("--runs", type=int, default=3)
parser.add_argument("--dtype", default="bfloat16")
parser.add_argument("--threads", type=int, default=2)
args = parser.parse_args()

torch.set_num_threads(args.threads)
begin = time.perf_counter()
model = transformers.AutoModelForCausalLM.from_pretrained(args.model, dtype=getattr(torch, args.dtype)).eval()
load = time.perf_counter() - begin
prompt = torch.arange(args.prompt_tokens).remainder(40_000).add(100).unsqueeze(0)
prefill, decode = [], []
with torch.inference_mode():
    for _ in range(args.runs + 1):
        begin = time.perf_counter()
        out = model(prompt, use_cache=True)
        token = out.logits[:, -1:].argmax(-1)
        first = time.perf_counter()
        for _ in range(args.generate - 1):
            out = model(token, past_key_values=out.past_key_values, use_cache=True)
            token = out.logits[:, -1:].argmax(-1)
        end = time.perf_counter()
        prefill.append(args.prompt_tokens / (first - begin))
        decode.append((args.generate - 1) / (end - first))
print(json.dumps({
    "peer": f"transformers {transformers.__version__}, torch {torch.__version__}",
    "dtype": args.dtype,
    "threads": args.threads,
    "load_s": round(load, 2),
    "prefill_tok_s": round(statistics.median(prefill[1:]), 1),
    "decode_tok_s": round(statistics.median(decode[1:]), 1),
}))
