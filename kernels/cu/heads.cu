// Values of heads brought into heads of another width: cut out, put beside others, or made wider with zeros.
#include "device.cuh"

struct Heads {
    const float* x;         // [heads, x_width]
    float* out;             // [heads, out_width]
    u64 heads;              // of all rows
    u32 x_width, x_first;   // where the values begin
    u32 out_width, out_first;
    u32 count, zeros;       // values of a head, and zeros behind them
};

constexpr u32 THREADS = 256;

KERNEL(copy_heads, THREADS, Heads) {
    u64 i = u64(blockIdx.x) * THREADS + threadIdx.x, wide = p.count + p.zeros;
    u64 head = i / wide;
    u32 at = u32(i % wide);
    if (head >= p.heads) return;
    p.out[head * p.out_width + p.out_first + at] = at < p.count ? p.x[head * p.x_width + p.x_first + at] : 0.0f;
}
