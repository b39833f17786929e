// What attention left of each chunk of keys becomes its rows' result: by the folds, in the order, of a prefill.
#include "softmax.cuh"

struct Merge {
    const float* parts;     // [rows, heads, chunks, width + 2]
    const float* sinks;     // null, or [heads]
    const u32* first_rows;  // [sequences + 1]
    const u32* contexts;    // [sequences]
    float* out;             // [rows, heads, width]
    u32 heads, chunks, width, window;
};

constexpr u32 THREADS = 128;
// Values of a thread: of the widest row, a latent of 512.
constexpr u32 OWN = 4;

struct Factors {
    // Of each chunk: what sums before it and its own are multiplied with, and its own sum of weights.
    float keep[THREADS], take[THREADS], weights[THREADS];
    float most[THREADS / WARP];
};

// As many chunks at a time as there are threads: first each thread has the factors of a chunk, since the maxima up to every
// chunk can be had at once, and then sums are folded chunk after chunk without waiting for exponentials.
KERNEL(attention_merge, THREADS, Merge) {
    Factors& s = shared<Factors>();
    u32 sequence = blockIdx.z, head = blockIdx.y, lane = threadIdx.x % WARP, warp = threadIdx.x / WARP;
    u32 first_row = p.first_rows[sequence], rows = p.first_rows[sequence + 1] - first_row;
    if (blockIdx.x >= rows) return;
    u64 at = (u64(first_row) + blockIdx.x) * p.heads + head;
    constexpr u32 CHUNK = KEYS * TILES_OF_CHUNK;
    u32 end = p.contexts[sequence] - rows + blockIdx.x + 1;
    u32 chunk = (p.window && end > p.window ? end - p.window : 0) / CHUNK, last = divide_up(end, CHUNK);
    Total total = {-infinity(), 0.0f};
    float sums[OWN] = {};
    for (; chunk < last; chunk += THREADS) {
        u32 count = last - chunk < THREADS ? last - chunk : THREADS;
        const float* parts = p.parts + (at * p.chunks + chunk) * (p.width + 2);
        const float* own = parts + threadIdx.x * (p.width + 2) + p.width;
        float most = threadIdx.x < count ? own[0] : -infinity(), weights = threadIdx.x < count ? own[1] : 0.0f;
        float up_to = most;
#pragma unroll
        for (u32 step = 1; step < WARP; step *= 2) {
            float other = shuffle(up_to, lane >= step ? lane - step : lane);
            up_to = fmaxf(up_to, other);
        }
        // Of the chunk before, in the same warp or in others.
        float before = shuffle(up_to, lane > 0 ? lane - 1 : 0);
        if (lane == 0) before = -infinity();
        if (lane == WARP - 1) s.most[warp] = up_to;
        block_sync();
        before = fmaxf(before, total.most);
        for (u32 other = 0; other < warp; ++other) before = fmaxf(before, s.most[other]);
        Total of_chunk = {before, 0.0f};
        of_chunk.fold(most, weights, s.keep[threadIdx.x], s.take[threadIdx.x]);
        s.weights[threadIdx.x] = weights;
        for (u32 other = 0; other < THREADS / WARP; ++other) total.most = fmaxf(total.most, s.most[other]);
        block_sync();
#pragma unroll
        for (u32 j = 0; j < OWN; ++j) {
            u32 i = j * THREADS + threadIdx.x;
            if (i >= p.width) break;
#pragma unroll 32
            for (u32 each = 0; each < count; ++each)
                sums[j] = fmaf(sums[j], s.keep[each], parts[each * (p.width + 2) + i] * s.take[each]);
        }
        for (u32 each = 0; each < count; ++each) total.sum = fmaf(total.sum, s.keep[each], s.weights[each] * s.take[each]);
        block_sync();
    }
    float factor = total.finish(p.sinks, head);
#pragma unroll
    for (u32 j = 0; j < OWN; ++j) {
        u32 i = j * THREADS + threadIdx.x;
        if (i < p.width) p.out[at * p.width + i] = sums[j] * factor;
    }
}
