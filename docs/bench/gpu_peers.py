"""What others' kernels do on this GPU at the sizes of kernels/benches/gpu: copies by torch, dense products by cuBLAS, attention by
torch, and experts by a Triton kernel in the usual form (blocks of rows sorted by expert), and by vLLM where it is installed.

    python3 gpu_peers.py

A line of JSON a figure, with the fields of the benchmark's own; `cargo xtask gpu` joins them. Times are taken as there: GPU
events behind a copy that keeps the GPU busy until everything is asked for, weights larger than the second cache, medians of two
rounds. What is timed is also compared with torch at some rows.
"""

import json
import math
import statistics
import sys
import time

import torch
import triton
import triton.language as tl

MODELS = [  # name, experts, experts of a token, hidden size, size within an expert
    ("Mixtral-8x7B", 8, 2, 4096, 14336),
    ("Qwen3-30B-A3B", 128, 8, 2048, 768),
    ("DeepSeek-V3", 256, 8, 7168, 2048),
    ("MiniMax-Text-01", 32, 2, 6144, 9216),
]
HEADS = [("32 heads of 128 over 4", 32, 4, 128), ("32 heads of 128 over 8", 32, 8, 128)]
DECODE, PREFILL, CONTEXT = (1, 4, 16), 4096, 8192
SAMPLES, RUNS, SAMPLE, LAUNCH = 22, 64, 1e-3, 8e-5
COPIED = 256 << 20
ROUTINGS = 16
FP8 = torch.float8_e4m3fn
# Rows, columns and values along k of a block, blocks of rows that share columns, warps, stages.
LARGE = [(128, 128, 64, 8, 8, 3), (128, 256, 64, 8, 8, 3), (64, 128, 64, 8, 4, 4), (128, 128, 128, 8, 8, 3)]
SMALL = [(16, 64, 128, 1, 4, 4), (16, 128, 128, 1, 4, 3), (16, 32, 256, 1, 4, 3)]


def tell(by, op, of, form, rows, took, moved=0, flop=0, error=None, note=""):
    seconds, noise = took
    line = {"by": by, "op": op, "of": of, "format": form, "rows": rows, "seconds": seconds, "noise": noise}
    line |= {"bytes": moved, "flop": flop, "note": note}
    print(json.dumps(line | ({} if error is None else {"error": error})), flush=True)


class Stopwatch:
    def __init__(self):
        self.scratch = torch.randint(0, 255, (2, COPIED), dtype=torch.uint8, device="cuda")
        self.copy_seconds = min(self.sample(lambda _: self.copy(), 1, 0, False) for _ in range(3))

    def copy(self):
        self.scratch[1].copy_(self.scratch[0])

    def sample(self, work, runs, first, behind_copies=True):
        if behind_copies:
            for _ in range(min(64, math.ceil(runs * LAUNCH / max(self.copy_seconds, 1e-6)))):
                self.copy()
        begin, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
        begin.record()
        for run in range(runs):
            work(first + run)
        end.record()
        end.synchronize()
        return begin.elapsed_time(end) / 1e3 / runs

    def time(self, work, samples=SAMPLES):
        """Median seconds of a run, and how far two rounds are apart."""
        self.sample(work, 1, 0)
        once = self.sample(work, 3, 1)
        runs = max(1, min(RUNS, math.ceil(SAMPLE / once)))
        rounds = ([], [])
        for number in range(samples):
            rounds[number % 2].append(self.sample(work, runs, number * runs))
        first, second = (statistics.median(times) for times in rounds)
        seconds = statistics.median(rounds[0] + rounds[1])
        return seconds, abs(first - second) / seconds


@triton.jit
def grouped_kernel(x, w, out, row_of, expert_of, rows, n, k, scale, DIVIDE: tl.constexpr, BM: tl.constexpr,
                   BN: tl.constexpr, BK: tl.constexpr, GROUP: tl.constexpr):
    """out[row] = x[row // DIVIDE] · w[expert of the row]ᵀ · scale; rows are sorted by expert, each expert's filled up to BM."""
    program = tl.program_id(0)
    blocks_m, blocks_n = tl.num_programs(0) // tl.cdiv(n, BN), tl.cdiv(n, BN)
    of_group = GROUP * blocks_n
    first_m = program // of_group * GROUP
    height = tl.minimum(blocks_m - first_m, GROUP)
    block_m = first_m + program % of_group % height
    block_n = program % of_group // height
    row = tl.load(row_of + block_m * BM + tl.arange(0, BM))
    expert = tl.load(expert_of + block_m).to(tl.int64)
    valid = row < rows
    columns = block_n * BN + tl.arange(0, BN)
    along = tl.arange(0, BK)
    x_at = x + (row // DIVIDE).to(tl.int64)[:, None] * k + along[None, :]
    w_at = w + expert * n * k + columns.to(tl.int64)[None, :] * k + along[:, None]
    total = tl.zeros((BM, BN), dtype=tl.float32)
    for step in range(0, tl.cdiv(k, BK)):
        inside = along < k - step * BK
        a = tl.load(x_at, mask=valid[:, None] & inside[None, :], other=0.0)
        b = tl.load(w_at, mask=(columns < n)[None, :] & inside[:, None], other=0.0)
        total = tl.dot(a, b, total)
        x_at += BK
        w_at += BK
    out_at = out + row.to(tl.int64)[:, None] * n + columns[None, :]
    tl.store(out_at, (total * scale).to(out.dtype.element_ty), mask=valid[:, None] & (columns < n)[None, :])


@triton.jit
def silu_kernel(both, out, inner, BLOCK: tl.constexpr):
    """out[row] = silu(both[row, :inner]) · both[row, inner:]"""
    row = tl.program_id(0).to(tl.int64)
    at = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    gate = tl.load(both + row * 2 * inner + at, mask=at < inner, other=0.0).to(tl.float32)
    up = tl.load(both + row * 2 * inner + inner + at, mask=at < inner, other=0.0).to(tl.float32)
    value = gate / (1.0 + tl.exp(-gate)) * up
    tl.store(out + row * inner + at, value.to(out.dtype.element_ty), mask=at < inner)


def sorted_blocks(ids, experts, height):
    """Rows (choices) by expert, each expert's filled up with a row that is not there, and the expert of each block."""
    flat = ids.flatten().cpu()
    order = torch.argsort(flat, stable=True)
    counts = torch.bincount(flat, minlength=experts)
    rows, blocks, first = [], [], 0
    for expert, count in enumerate(counts.tolist()):
        padded = -(-count // height) * height
        rows.append(order[first:first + count])
        rows.append(torch.full((padded - count,), flat.numel(), dtype=order.dtype))
        blocks += [expert] * (padded // height)
        first += count
    device = ids.device
    return torch.cat(rows).to(torch.int32).to(device), torch.tensor(blocks, dtype=torch.int32, device=device)


def grouped(config, x, w, out, blocks, rows, divide, scale):
    height, width, depth, group, warps, stages = config
    n, k = w.shape[1], w.shape[2]
    row_of, expert_of = blocks
    grid = (expert_of.numel() * triton.cdiv(n, width),)
    grouped_kernel[grid](x, w, out, row_of, expert_of, rows, n, k, scale, DIVIDE=divide, BM=height, BN=width, BK=depth,
                         GROUP=group, num_warps=warps, num_stages=stages)


class Layer:
    """A MoE layer's experts by Triton."""

    def __init__(self, model, both, down, tokens, form):
        self.name, self.experts, self.per_token, self.hidden, self.inner = model
        self.both, self.down, self.tokens, self.form = both, down, tokens, form
        self.dtype = both.dtype
        # Codes of fp8 are about 1, weights of bf16 about 1/16; the results are kept within bf16's and fp8's range.
        self.scale = 1.0 if form == "bf16" else 1.0 / 64
        device = both.device
        self.x = torch.randn(tokens, self.hidden, device=device).to(self.dtype)
        scores = torch.rand(ROUTINGS if tokens <= 16 else 1, tokens, self.experts, device=device)
        self.ids = scores.topk(self.per_token, dim=-1).indices
        choices = tokens * self.per_token
        self.wide = torch.empty(choices, 2 * self.inner, dtype=torch.bfloat16, device=device)
        self.narrow = torch.empty(choices, self.inner, dtype=self.dtype, device=device)
        self.out = torch.empty(choices, self.hidden, dtype=torch.bfloat16, device=device)

    def run(self, config, blocks, number):
        blocks, choices = blocks[number % len(blocks)], self.tokens * self.per_token
        grouped(config, self.x, self.both, self.wide, blocks, choices, self.per_token, self.scale)
        silu_kernel[(choices, triton.cdiv(self.inner, 1024))](self.wide, self.narrow, self.inner, BLOCK=1024)
        grouped(config, self.narrow, self.down, self.out, blocks, choices, 1, self.scale)

    def blocks(self, config):
        return [sorted_blocks(ids, self.experts, config[0]) for ids in self.ids]

    def error(self, config, blocks):
        """‖got − torch‖ / ‖torch‖ over some rows of both products."""
        for out in (self.wide, self.out):
            out.fill_(math.nan)
        self.run(config, blocks, 0)
        apart = size = 0.0
        for choice in range(0, self.tokens * self.per_token, max(1, self.tokens * self.per_token // 7)):
            expert = int(self.ids[0].flatten()[choice])
            x = self.x[choice // self.per_token].float()
            for got, w, row in ((self.wide, self.both, x), (self.out, self.down, self.narrow[choice].float())):
                exact = w[expert].float() @ row * self.scale
                apart += ((got[choice].float() - exact) ** 2).sum().item() / (exact**2).sum().item()
                size += 1
        return math.sqrt(apart / size)

    def counted(self):
        """Bytes and operations as the benchmark counts them: experts with rows, on an average of the routings."""
        used = statistics.mean(len(set(ids.flatten().tolist())) for ids in self.ids)
        size, choices = self.both.element_size(), self.tokens * self.per_token
        weights = used * 3 * self.hidden * self.inner * size
        rows = self.tokens * self.hidden * size + choices * (2 * self.inner * size + 2 * self.hidden)
        return int(weights + rows), 2 * choices * 3 * self.hidden * self.inner


def experts_by_triton(watch, layer):
    configs, best = LARGE if layer.tokens > 16 else SMALL, None
    for config in configs:
        try:
            blocks = layer.blocks(config)
            error = layer.error(config, blocks)
            assert error < 3e-2, f"the error is {error}"
            seconds, _ = watch.time(lambda run: layer.run(config, blocks, run), 4)
            best = min(best or (math.inf,), (seconds, config, error))
        except Exception as why:  # A configuration that this GPU has no shared memory for is none.
            print(f"{layer.name} {layer.form} {config}: {why}", file=sys.stderr)
    if best is None:
        raise RuntimeError(f"no configuration of the Triton kernel runs for {layer.name}, {layer.form}")
    _, config, error = best
    blocks = layer.blocks(config)
    took = watch.time(lambda run: layer.run(config, blocks, run))
    note = f"best of {len(configs)}: {config}" + (", rows of fp8, too" if layer.form == "fp8" else "")
    tell("triton", "experts", layer.name, layer.form, layer.tokens, took, *layer.counted(), error, note)


def experts_by_vllm(watch, layer):
    from vllm.model_executor.layers.fused_moe import fused_experts

    x, weights = layer.x, torch.full(layer.ids.shape, 1 / layer.per_token, device="cuda")
    ids = layer.ids.to(torch.int32)

    def run(number):
        fused_experts(x, layer.both, layer.down, weights[number % len(ids)], ids[number % len(ids)])

    tell("vllm", "experts", layer.name, layer.form, layer.tokens, watch.time(run), *layer.counted())


def weights_of(form, *shape):
    """Random weights where they are to be: there is no room for two of them."""
    if form == "bf16":
        return torch.empty(shape, dtype=torch.bfloat16, device="cuda").normal_(0, 1 / 16)
    codes = torch.empty(shape, dtype=torch.uint8, device="cuda")
    for part in codes:  # A large tensor is filled by parts, for lack of memory.
        part.random_(0, 256).bitwise_and_(0xBF)
    return codes.view(FP8)


FAILED = []


def tried(what, measure, *of):
    """Measures, or says why not: the others' figures are worth having."""
    try:
        measure(*of)
    except Exception as why:
        FAILED.append(what)
        print(f"{what} failed: {why!r}", file=sys.stderr)


def experts(watch):
    has_vllm = installed("vllm")
    for form in ("bf16", "fp8"):
        for model in MODELS:
            tried(f"experts of {model[0]}, {form}", experts_of, watch, form, model, has_vllm)
            torch.cuda.empty_cache()


def experts_of(watch, form, model, has_vllm):
    _, count, _, hidden, inner = model
    both, down = weights_of(form, count, 2 * inner, hidden), weights_of(form, count, hidden, inner)
    for tokens in (PREFILL, *DECODE):
        layer = Layer(model, both, down, tokens, form)
        what = f"{model[0]}, {form}, {tokens} tokens"
        tried(f"Triton: {what}", experts_by_triton, watch, layer)
        if form == "bf16" and has_vllm:
            tried(f"vLLM: {what}", experts_by_vllm, watch, layer)


def dense(watch):
    for model in MODELS:
        tried(f"dense products of {model[0]}", dense_of, watch, *model)


def dense_of(watch, name, _, per_token, hidden, inner):
    one = torch.ones((), device="cuda")
    rows = PREFILL * per_token
    x, narrow = (torch.randn(rows, width, device="cuda").to(torch.bfloat16) for width in (hidden, inner))
    both, down = weights_of("bf16", 2 * inner, hidden), weights_of("bf16", hidden, inner)
    flop = 2 * rows * 3 * hidden * inner
    took = watch.time(lambda _: (x @ both.t(), narrow @ down.t()))
    tell("cublas", "dense", name, "bf16", PREFILL, took, 0, flop, note=f"{rows} rows times both matrices of an expert")
    x, narrow, both, down = (value.to(FP8) for value in (x, narrow, both, down))

    def run(_):
        for a, b in ((x, both), (narrow, down)):
            torch._scaled_mm(a, b.t(), scale_a=one, scale_b=one, out_dtype=torch.bfloat16, use_fast_accum=True)

    tell("cublas", "dense", name, "fp8", PREFILL, watch.time(run), 0, flop, note="both sides of fp8, a scale a matrix")


def attention(watch):
    for name, q_heads, kv_heads, width in HEADS:
        for rows in DECODE:
            of_set = 2 * rows * kv_heads * CONTEXT * width * 2
            sets = max(1, min(16, math.ceil((256 << 20) / of_set)))
            q = torch.randn(rows, q_heads, 1, width, device="cuda").to(torch.bfloat16)
            shape = (sets, 2, rows, kv_heads, CONTEXT, width)
            cache = torch.empty(shape, dtype=torch.bfloat16, device="cuda").normal_()

            def run(number):
                keys, values = cache[number % sets]
                torch.nn.functional.scaled_dot_product_attention(q, keys, values, enable_gqa=True)

            moved = of_set + 2 * rows * q_heads * width * 2
            flop = 4 * rows * q_heads * CONTEXT * width
            note = "scaled_dot_product_attention, keys in one piece"
            tell("torch", "attention", f"{name}, {CONTEXT} keys", "bf16", rows, watch.time(run), moved, flop, note=note)


def copies(watch):
    tell("torch", "copy", "within the memory", "", 0, watch.time(lambda _: watch.copy()), 2 * COPIED)


def installed(name):
    try:
        __import__(name)
        return True
    except Exception as why:  # Libraries of GPUs fail in many ways where they do not fit the machine.
        if not isinstance(why, ImportError):
            print(f"{name} cannot be imported: {why!r}", file=sys.stderr)
        return False


def main():
    if not torch.cuda.is_available():
        sys.exit("torch sees no GPU here")
    torch.manual_seed(1)
    began = time.monotonic()
    print(f"torch {torch.__version__}, triton {triton.__version__}, {torch.cuda.get_device_name()}", file=sys.stderr)
    for name in ("vllm", "sglang"):
        print(f"{name} is {'' if installed(name) else 'not '}installed here", file=sys.stderr)
    watch = Stopwatch()
    for part in (copies, dense, attention, experts):
        tried(part.__name__, part, watch)
        torch.cuda.empty_cache()
        print(f"{part.__name__}: {time.monotonic() - began:.0f} s", file=sys.stderr)
    sys.exit(1 if FAILED else 0)


if __name__ == "__main__":
    main()
