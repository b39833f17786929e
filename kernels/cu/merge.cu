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

KERNEL(attention_merge, 128, Merge) {
    u32 sequence = blockIdx.z, head = blockIdx.y;
    u32 first_row = p.first_rows[sequence], rows = p.first_rows[sequence + 1] - first_row;
    if (blockIdx.x >= rows) return;
    u64 at = (u64(first_row) + blockIdx.x) * p.heads + head;
    constexpr u32 CHUNK = KEYS * TILES_OF_CHUNK;
    u32 end = p.contexts[sequence] - rows + blockIdx.x + 1;
    u32 chunk = (p.window && end > p.window ? end - p.window : 0) / CHUNK, last = divide_up(end, CHUNK);
    for (u32 i = threadIdx.x; i < p.width; i += blockDim.x) {
        Total total = {-infinity(), 0.0f};
        float sum = 0.0f, keep, take;
        for (u32 each = chunk; each < last; ++each) {
            const float* of_chunk = p.parts + (at * p.chunks + each) * (p.width + 2);
            total.fold(of_chunk[p.width], of_chunk[p.width + 1], keep, take);
            sum = fmaf(sum, keep, of_chunk[i] * take);
        }
        p.out[at * p.width + i] = sum * total.finish(p.sinks, head);
    }
}
