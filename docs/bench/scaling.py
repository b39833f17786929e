#!/usr/bin/env python3
"""Runs `coterie-operator simulate` over shapes, cold starts and seeds, and prints the means as a table.

    python3 docs/bench/scaling.py target/release/coterie-operator [--seeds 5] [--scale 8]
"""

import argparse
import json
import subprocess

parser = argparse.ArgumentParser()
parser.add_argument("operator")
parser.add_argument("--seeds", type=int, default=5)
parser.add_argument("--first-seed", type=int, default=101)
parser.add_argument("--scale", type=float, default=8)
options = parser.parse_args()

for shape in ["conversation", "code"]:
    for cold_start in [30, 120]:
        runs = []
        for seed in range(options.first_seed, options.first_seed + options.seeds):
            command = [options.operator, "simulate", "--synthetic", shape, "--seed", str(seed), "-o", "json"]
            command += ["--scale", str(options.scale), "--cold-start", str(cold_start)]
            runs.append(json.loads(subprocess.run(command, check=True, capture_output=True).stdout))
        print(f"\n**{shape.capitalize()}, cold start {cold_start} s**\n")
        print("| policy | target | SLO, mean | worst seed | replica hours | overshoot | decisions |")
        print("|---|---|---|---|---|---|---|")
        for rows in zip(*runs):
            mean = lambda field: sum(row[field] for row in rows) / len(rows)
            targets = sorted({row.get("target") for row in rows} - {None})
            target = " to ".join(dict.fromkeys(f"{t:g}" for t in targets[:1] + targets[-1:]))
            worst = min(row["slo_attainment"] for row in rows)
            print(
                f"| {rows[0]['policy']} | {target} | {mean('slo_attainment'):.2%} | {worst:.2%} "
                f"| {mean('replica_hours'):.1f} | {mean('overshoot'):.2f} | {mean('decisions'):.0f} |"
            )
