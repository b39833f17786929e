// Root mean square norm: one block a row, the row held in registers between its two passes. The order of additions
// depends on the width alone.
#include "device.cuh"

struct Norm {
    const float* x;       // [rows, width]
    const float* weight;  // [width]
    float* residual;      // null, or [rows, width], which x is added to first: the sum is kept there and normed
    void* out;            // [rows, width]
    u32 width;            // a multiple of 4, at most 4 · THREADS · HELD
    float eps;
};

constexpr u32 THREADS = 256;
constexpr u32 HELD = 16;

struct Sums {
    float of_warp[THREADS / WARP];
};

template <class Out>
__device__ __forceinline__ void norm_row(const Norm& p) {
    Sums& sums = shared<Sums>();
    u64 row = u64(blockIdx.x) * p.width;
    Four held[HELD];
    float square = 0.0f;
#pragma unroll
    for (u32 i = 0; i < HELD; ++i) {
        u32 at = 4 * (i * THREADS + threadIdx.x);
        if (at >= p.width) break;
        held[i] = load<Four>(p.x + row + at);
        if (p.residual) {
            Four before = load<Four>(p.residual + row + at);
#pragma unroll
            for (u32 j = 0; j < 4; ++j) held[i].values[j] += before.values[j];
            store(p.residual + row + at, held[i]);
        }
#pragma unroll
        for (u32 j = 0; j < 4; ++j) square = fmaf(held[i].values[j], held[i].values[j], square);
    }
    square = warp_sum(square);
    if (threadIdx.x % WARP == 0) sums.of_warp[threadIdx.x / WARP] = square;
    block_sync();
    float total = 0.0f;
#pragma unroll
    for (u32 warp = 0; warp < THREADS / WARP; ++warp) total += sums.of_warp[warp];
    float factor = 1.0f / sqrtf(total / float(p.width) + p.eps);
    Out* out = static_cast<Out*>(p.out) + row;
#pragma unroll
    for (u32 i = 0; i < HELD; ++i) {
        u32 at = 4 * (i * THREADS + threadIdx.x);
        if (at >= p.width) break;
        Four weight = load<Four>(p.weight + at);
#pragma unroll
        for (u32 j = 0; j < 4; ++j) held[i].values[j] *= factor * weight.values[j];
        put4(out + at, held[i]);
    }
}

KERNEL(norm_f32, THREADS, Norm) { norm_row<float>(p); }
KERNEL(norm_bf16, THREADS, Norm) { norm_row<bf16>(p); }
