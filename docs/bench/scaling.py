#!/usr/bin/env python3
"""Runs `coterie-operator simulate` over shapes, cold starts and seeds, and prints the means as tables.

    python3 docs/bench/scaling.py target/release/coterie-operator [--seeds 12] [--first-seed 701] [--scale 8] [--plots docs/bench]

`over static` is the mean over seeds of a policy's replica hours over those of the same seed's static fleet.
"""

import argparse
import json
import subprocess
from pathlib import Path

parser = argparse.ArgumentParser()
parser.add_argument("operator")
parser.add_argument("--seeds", type=int, default=12)
parser.add_argument("--first-seed", type=int, default=701)
parser.add_argument("--scale", type=float, default=8)
parser.add_argument("--no-sweep", action="store_true", help="others at their usual targets only")
parser.add_argument("--plots", type=Path, help="draw the first seed of each table into this folder")
options = parser.parse_args()


def run(shape, cold_start, seed):
    command = [options.operator, "simulate", "--synthetic", shape, "--seed", str(seed), "-o", "json"]
    command += ["--scale", str(options.scale), "--cold-start", str(cold_start)]
    command += ["--no-sweep"] * options.no_sweep
    if options.plots and seed == options.first_seed:
        command += ["--plot", str(options.plots / f"scaling-{shape}-{cold_start}.svg")]
    return json.loads(subprocess.run(command, check=True, capture_output=True).stdout)


def line(rows, static):
    """A policy's row, from its rows of all seeds and those of the static fleet."""
    mean = lambda field: sum(row[field] for row in rows) / len(rows)
    targets = sorted({row.get("target") for row in rows} - {None})
    target = " to ".join(dict.fromkeys(f"{t:g}" for t in targets[:1] + targets[-1:]))
    worst = min(row["slo_attainment"] for row in rows)
    over = [row["replica_hours"] / fixed["replica_hours"] - 1 for row, fixed in zip(rows, static)]
    over = f"{sum(over) / len(over):+.0%} ({min(over):+.0%} to {max(over):+.0%})" if rows is not static else ""
    return (
        f"| {rows[0]['policy']} | {target} | {mean('slo_attainment'):.2%} | {worst:.2%} "
        f"| {mean('replica_hours'):.1f} | {over} | {mean('overshoot'):.2f} | {mean('decisions'):.0f} |"
    )


for shape in ["conversation", "code"]:
    for cold_start in [30, 120]:
        seeds = range(options.first_seed, options.first_seed + options.seeds)
        policies = list(zip(*[run(shape, cold_start, seed) for seed in seeds]))
        print(f"\n**{shape.capitalize()}, cold start {cold_start} s**\n")
        print("| policy | target | SLO, mean | worst seed | replica hours | over static | overshoot | decisions |")
        print("|---|---|---|---|---|---|---|---|")
        for rows in policies:
            print(line(rows, policies[0]), flush=True)
