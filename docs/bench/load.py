"""Drives an OpenAI-compatible server with N streams at once and prints one JSON object.

Each stream sends a completion, reads its answer to the end and sends the next. Prompts are random token ids, so their
length is exact; no two are alike unless --shared-tokens makes them begin alike. Needs nothing but Python.
usage: python load.py URL [--streams 16] [--requests 32 | --seconds 60] [--prompt-tokens 512] [--shared-tokens 0]
                      [--generate 64] [--extra '{"ignore_eos": true}']
"""
import argparse
import asyncio
import json
import math
import random
import resource
import sys
import time
import urllib.parse

parser = argparse.ArgumentParser()
parser.add_argument("url")
parser.add_argument("--label", default="", help="printed with the figures")
parser.add_argument("--model", help="default: the first that the server lists")
parser.add_argument("--streams", type=int, default=16)
parser.add_argument("--requests", type=int, default=32)
parser.add_argument("--seconds", type=float, help="go on so long instead of --requests; what runs then is left")
parser.add_argument("--prompt-tokens", type=int, default=512)
parser.add_argument("--shared-tokens", type=int, default=0, help="of each prompt, so many are those of all others")
parser.add_argument("--generate", type=int, default=64)
parser.add_argument("--warm-up", type=int, default=1, help="requests, all at once, before the clock starts")
parser.add_argument("--vocabulary", type=int, default=49152)
parser.add_argument("--seed", type=int, default=0)
parser.add_argument("--extra", type=json.loads, default={}, help="more fields of the request, as JSON")
args = parser.parse_args()
url = urllib.parse.urlsplit(args.url)


class Answer:
    """What one request came to; times are seconds."""

    def __init__(self):
        self.sent = time.perf_counter()
        self.arrivals = []  # of every chunk that has text
        self.prompt_tokens = self.tokens = self.cached = 0
        self.error = None


def prompt(number):
    """Token ids; the structure tokens that vocabularies begin with are left out."""
    rng = random.Random(f"{args.seed} shared")
    ids = [rng.randrange(100, args.vocabulary) for _ in range(args.shared_tokens)]
    rng = random.Random(f"{args.seed} {number}")
    return ids + [rng.randrange(100, args.vocabulary) for _ in range(args.prompt_tokens - len(ids))]


async def request(method, path, body):
    """Sends a request on a connection of its own; the reader stands behind the head of the reply."""
    reader, writer = await asyncio.open_connection(url.hostname, url.port or 80)
    head = f"{method} {path} HTTP/1.1\r\nhost: {url.netloc}\r\nconnection: close\r\n"
    head += f"content-type: application/json\r\ncontent-length: {len(body)}\r\n\r\n"
    writer.write(head.encode() + body)
    status = int((await reader.readline()).split()[1])
    while await reader.readline() != b"\r\n":
        pass
    return status, reader, writer


async def complete(number, answers):
    fields = {"model": args.model, "prompt": prompt(number), "max_tokens": args.generate, "temperature": 0}
    fields |= {"stream": True, "stream_options": {"include_usage": True}} | args.extra
    body = json.dumps(fields).encode()
    answer = Answer()
    answers.append(answer)
    writer = None
    try:
        status, reader, writer = await request("POST", "/v1/completions", body)
        if status != 200:
            raise ValueError(f"status {status}: {(await reader.read(400)).decode(errors='replace')}")
        # Sizes of chunks stand on lines of their own and are skipped with whatever else is no event.
        while line := await reader.readline():
            if not line.startswith(b"data: {"):
                continue
            chunk = json.loads(line[6:])
            if "error" in chunk:
                raise ValueError(line.decode())
            if any(choice.get("text") for choice in chunk["choices"]):
                answer.arrivals.append(time.perf_counter())
            if usage := chunk.get("usage"):
                answer.prompt_tokens, answer.tokens = usage["prompt_tokens"], usage["completion_tokens"]
                answer.cached = (usage.get("prompt_tokens_details") or {}).get("cached_tokens", 0)
        if not answer.tokens:
            raise ValueError("the answer ended early")
    except (OSError, ValueError, IndexError, KeyError) as error:
        answer.error = repr(error)
    finally:
        if writer:
            writer.close()


async def streams(count, numbers):
    answers = []

    async def one():
        for number in numbers:
            await complete(number, answers)

    tasks = [asyncio.create_task(one()) for _ in range(count)]
    await asyncio.wait(tasks, timeout=args.seconds)
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    return answers


def percentiles(seconds):
    """Milliseconds, by nearest rank."""
    ordered = sorted(seconds)
    at = lambda share: round(1000 * ordered[math.ceil(share * len(ordered)) - 1], 1) if ordered else None
    return {"p50": at(0.5), "p99": at(0.99)}


async def main():
    if not args.model:
        _, reader, _ = await request("GET", "/v1/models", b"")
        listed = await reader.read()
        args.model = json.loads(listed[listed.index(b"{") : listed.rindex(b"}") + 1])["data"][0]["id"]
    await streams(args.warm_up, iter(range(-args.warm_up, 0)))
    cpu = time.process_time()
    begin = time.perf_counter()
    numbers = iter(range(10**9 if args.seconds else args.requests))
    answers = await streams(args.streams, numbers)
    wall = time.perf_counter() - begin
    cpu = time.process_time() - cpu
    done = [answer for answer in answers if answer.tokens and not answer.error]
    gaps = [b - a for answer in answers for a, b in zip(answer.arrivals, answer.arrivals[1:])]
    print(json.dumps({
        "label": args.label,
        "streams": args.streams,
        "prompt_tokens": args.prompt_tokens,
        "shared_tokens": args.shared_tokens,
        "generate": args.generate,
        "requests": len(done),
        "wall_s": round(wall, 2),
        # An answer that was left before its end has told no number of tokens: its chunks count instead.
        "output_tok_s": round(sum(answer.tokens or len(answer.arrivals) for answer in answers) / wall, 1),
        "prompt_tok_s": round(sum(answer.prompt_tokens for answer in done) / wall, 1),
        "cached_tokens": sum(answer.cached for answer in done),
        "ttft_ms": percentiles([answer.arrivals[0] - answer.sent for answer in answers if answer.arrivals]),
        "itl_ms": percentiles(gaps),
        "tokens": sum(answer.tokens for answer in done),
        "chunks": sum(len(answer.arrivals) for answer in done),
        "errors": sum(answer.error is not None for answer in answers),
        "client_cpu_share": round(cpu / wall, 3),
        "client_peak_rss_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024,
    }))
    for error in {answer.error for answer in answers if answer.error}:
        print(error, file=sys.stderr)


asyncio.run(main())
