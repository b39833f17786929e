// Root mean square norm: one block a row, the row held in registers between its two passes. The order of additions
// depends on the width alone.
#include "device.cuh"

struct Norm {
    const float* x;       // [rows, width]
    const float* weight;  // [width]
    float* residual;      // null, or [rows, width], which x is added to first: the sum is kept there and normed
    void* out;            // [rows, width]
    u32 width;            // at most 4 · THREADS · HELD
    float eps;
};

constexpr u32 THREADS = 256;
constexpr u32 HELD = 16;

struct Sums {
    float of_warp[THREADS / WARP];
};

// Of a row that is not whole fours, what is behind its end stays.
template <class Out>
__device__ __forceinline__ void put_row(Out* row, u32 at, u32 width, const Four& x) {
    if (width % 4 == 0) return put4(row + at, x);
#pragma unroll
    for (u32 j = 0; j < 4; ++j)
        if (at + j < width) put(row + at + j, x.values[j]);
}

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
        held[i] = four_of(p.x + row, at, p.width);
        if (p.residual) {
            Four before = four_of(p.residual + row, at, p.width);
#pragma unroll
            for (u32 j = 0; j < 4; ++j) held[i].values[j] += before.values[j];
            put_row(p.residual + row, at, p.width, held[i]);
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
        Four weight = four_of(p.weight, at, p.width);
#pragma unroll
        for (u32 j = 0; j < 4; ++j) held[i].values[j] *= factor * weight.values[j];
        put_row(out, at, p.width, held[i]);
    }
}

KERNEL(norm_f32, THREADS, Norm) { norm_row<float>(p); }
KERNEL(norm_bf16, THREADS, Norm) { norm_row<bf16>(p); }
