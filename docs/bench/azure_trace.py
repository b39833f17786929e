#!/usr/bin/env python3
"""Makes a trace for `coterie-operator simulate --trace` of a CSV of Azure's LLM inference traces of 2023 (TIMESTAMP,ContextTokens,GeneratedTokens).

    python3 docs/bench/azure_trace.py AzureLLMInferenceTrace_conv.csv conversation.csv [--scale 8] [--seed 1]

With --scale N every request comes N times, the copies up to five seconds before or after it and with the lengths of others, so that the rate keeps
its course. The CSVs are published in the repository Azure/AzurePublicDataset, folder data.
"""

import argparse
import csv
import random
from datetime import datetime

parser = argparse.ArgumentParser()
parser.add_argument("azure")
parser.add_argument("out")
parser.add_argument("--scale", type=int, default=1)
parser.add_argument("--seed", type=int, default=1)
options = parser.parse_args()


def seconds(timestamp):
    # Seven digits of a second, of which Python reads six.
    whole, _, rest = timestamp.partition(".")
    return datetime.fromisoformat(whole).timestamp() + float(f"0.{rest or 0}")


with open(options.azure, newline="") as file:
    rows = [(seconds(r["TIMESTAMP"]), int(r["ContextTokens"]), int(r["GeneratedTokens"])) for r in csv.DictReader(file)]
begin = min(at for at, _, _ in rows)
dice = random.Random(options.seed)
requests = [(at - begin, prompt, output) for at, prompt, output in rows]
for at, _, _ in list(requests):
    for _ in range(options.scale - 1):
        _, prompt, output = dice.choice(rows)
        requests.append((max(0.0, at + dice.uniform(-5, 5)), prompt, output))
with open(options.out, "w") as file:
    file.write("arrival_s,prompt_tokens,output_tokens\n")
    for at, prompt, output in sorted(requests):
        file.write(f"{at:.4f},{max(prompt, 1)},{max(output, 1)}\n")
