"""Several ranks of one replica on this machine: what a lost rank, a moved expert and the exchange itself cost.

Prints one JSON object a scenario. Ranks are processes on loopback, each with the cores that it is given.
usage: python ranks.py COTERIE MODEL_DIR [--scenario kill|move|width|all] [--rounds 20]
"""
import argparse
import json
import os
import socket
import statistics
import subprocess
import tempfile
import threading
import time
import http.client
import pathlib

parser = argparse.ArgumentParser()
parser.add_argument("coterie")
parser.add_argument("model")
parser.add_argument("--scenario", default="all")
parser.add_argument("--rounds", type=int, default=20)
parser.add_argument("--quantization", default="int8")
args = parser.parse_args()

config = json.loads((pathlib.Path(args.model) / "config.json").read_text())
LAYERS, EXPERTS = config["num_hidden_layers"], config["num_local_experts"]
cores = sorted(os.sched_getaffinity(0))


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


class Replica:
    """Ranks that share one map; `held` lists each rank's experts, alike in all layers."""

    def __init__(self, held, pinned=True):
        self.folder = tempfile.TemporaryDirectory()
        self.ports = [free_port() for _ in held]
        self.http = [free_port() for _ in held]
        self.version = 0
        self.pinned = pinned
        self.processes = [None] * len(held)
        peers = [{"rank": r, "address": f"127.0.0.1:{p}"} for r, p in enumerate(self.ports)]
        self.put("peers.json", {"peers": peers})
        self.move(held)
        for rank in range(len(held)):
            self.run(rank)
        for rank in range(len(held)):
            self.until_ready(rank)

    def put(self, name, value):
        path = pathlib.Path(self.folder.name)
        (path / "next").write_text(json.dumps(value))
        (path / "next").rename(path / name)

    def move(self, held):
        self.version += 1
        self.put("map.json", {"version": self.version, "experts": EXPERTS, "layers": [held] * LAYERS})

    def run(self, rank):
        folder = pathlib.Path(self.folder.name)
        command = [args.coterie, "serve", "--model", args.model, "--host", "127.0.0.1", "--port", str(self.http[rank]),
                   "--served-name", "m", "--quantization", args.quantization, "--context", "1024", "--threads", "1",
                   "--drain-seconds", "1", "--rank", str(rank), "--expert-map", str(folder / "map.json"),
                   "--peers", str(folder / "peers.json"), "--exchange-port", str(self.ports[rank])]
        if self.pinned:
            command = ["taskset", "-c", str(cores[rank % len(cores)])] + command
        log = open(folder / f"rank-{rank}.log", "a")
        self.processes[rank] = subprocess.Popen(command, stderr=log)

    def until_ready(self, rank):
        for _ in range(1200):
            try:
                if get(self.http[rank], "/ready")[0] == 200:
                    return
            except OSError:
                pass
            time.sleep(0.05)
        raise SystemExit(f"rank {rank} never became ready")

    def until_whole(self):
        """All ranks see all others alive and send by the newest map."""
        for _ in range(1200):
            reports = [json.loads(get(port, "/experts")[1]) for port in self.http]
            if all(r["routingVersion"] == self.version and all(p["state"] == "Alive" for p in r["peers"]) for r in reports):
                return reports
            time.sleep(0.05)
        raise SystemExit(f"the replica never became whole: {reports}")

    def kill(self, rank):
        self.processes[rank].kill()
        self.processes[rank].wait()

    def end(self):
        for process in self.processes:
            process.kill()
            process.wait()


def get(port, path):
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    connection.request("GET", path)
    reply = connection.getresponse()
    return reply.status, reply.read()


def stream(port, tokens, arrivals, prompt=16, stop=None):
    """Appends the time of every token of one answer to `arrivals`."""
    body = {"model": "m", "prompt": [500 + i for i in range(prompt)], "max_tokens": tokens, "ignore_eos": True,
            "temperature": 0, "stream": True}
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=120)
    connection.request("POST", "/v1/completions", json.dumps(body), {"content-type": "application/json"})
    reply = connection.getresponse()
    assert reply.status == 200, reply.read()
    for line in reply:
        if line.startswith(b"data: {"):
            assert b'"error"' not in line, line
            arrivals.append(time.perf_counter())
        if stop is not None and stop.is_set():
            break
    connection.close()


def quantile(values, q):
    return sorted(values)[min(len(values) - 1, int(q * len(values)))]


def milliseconds(values):
    return {"p50": round(1000 * quantile(values, 0.5), 1), "p99": round(1000 * quantile(values, 0.99), 1),
            "max": round(1000 * max(values), 1)}


def gap_after(arrivals, moment):
    """From `moment` to the next token."""
    return next(a for a in arrivals if a > moment) - moment


def kill():
    for name, held in [("every expert twice", [[0, 1, 2, 3, 4, 5], [0, 1, 2, 6, 7], [3, 4, 5, 6, 7]]),
                       ("every expert once", [[0, 1, 2], [3, 4, 5], [6, 7]])]:
        replica = Replica(held, pinned=False)
        gaps, usual = [], []
        for _ in range(args.rounds):
            replica.until_whole()
            arrivals = []
            asking = threading.Thread(target=stream, args=(replica.http[0], 60, arrivals))
            asking.start()
            while len(arrivals) < 15:
                time.sleep(0.005)
            usual += [b - a for a, b in zip(arrivals, arrivals[1:])]
            moment = time.perf_counter()
            replica.kill(2)
            asking.join()
            assert len(arrivals) >= 60, len(arrivals)
            gaps.append(gap_after(arrivals, moment))
            replica.run(2)
            replica.until_ready(2)
        replica.end()
        print(json.dumps({"scenario": "kill -9 of one of three ranks", "experts": name, "rounds": args.rounds,
                          "first_token_after_ms": milliseconds(gaps), "usual_gap_ms": milliseconds(usual)}), flush=True)


def move():
    one = [[0, 1, 2, 3], [4, 5, 6, 7]]
    other = [[0, 1, 6, 7], [4, 5, 2, 3]]
    replica = Replica(one)
    during, usual, durations = [], [], []
    for round_ in range(min(args.rounds, 8)):
        replica.until_whole()
        arrivals, stop = [], threading.Event()
        asking = threading.Thread(target=stream, args=(replica.http[0], 900, arrivals, 16, stop))
        asking.start()
        while len(arrivals) < 40:
            time.sleep(0.005)
        usual += [b - a for a, b in zip(arrivals, arrivals[1:])]
        begin = time.perf_counter()
        replica.move(other if round_ % 2 == 0 else one)
        replica.until_whole()
        end = time.perf_counter()
        durations.append(end - begin)
        time.sleep(0.3)
        stop.set()
        asking.join()
        during.append(max(b - a for a, b in zip(arrivals, arrivals[1:]) if b > begin and a < end))
    replica.end()
    print(json.dumps({"scenario": "half of the experts change places", "rounds": len(during),
                      "longest_gap_ms": milliseconds(during), "usual_gap_ms": milliseconds(usual),
                      "until_all_send_by_it_s": round(statistics.median(durations), 2)}), flush=True)


def width():
    half = EXPERTS // 2
    for name, held, busy in [("1 rank, 1 core", [list(range(EXPERTS))], [0]),
                             ("2 ranks, 1 core each, one asked", [list(range(half)), list(range(half, EXPERTS))], [0]),
                             ("2 ranks, 1 core each, both asked", [list(range(half)), list(range(half, EXPERTS))], [0, 1])]:
        replica = Replica(held)
        for streams in (1, 8):
            all_arrivals, threads = [], []
            begin = time.perf_counter()
            for port in [replica.http[rank] for rank in busy]:
                for _ in range(streams):
                    arrivals = []
                    all_arrivals.append(arrivals)
                    threads.append(threading.Thread(target=stream, args=(port, 100, arrivals)))
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
            end = time.perf_counter()
            tokens = sum(len(a) for a in all_arrivals)
            gaps = [b - a for arrivals in all_arrivals for a, b in zip(arrivals, arrivals[1:])]
            print(json.dumps({"scenario": name, "streams_a_rank": streams, "tokens_s": round(tokens / (end - begin), 1),
                              "gap_ms": milliseconds(gaps)}), flush=True)
        if len(held) > 1:
            text = get(replica.http[0], "/metrics")[1].decode()
            lines = [line for line in text.splitlines() if "exchange_round_trip" in line and ("_sum" in line or "_count" in line)]
            print(json.dumps({"scenario": name, "round_trips": lines}), flush=True)
        replica.end()


for scenario in (width, move, kill):
    if args.scenario in ("all", scenario.__name__):
        scenario()
