// out = x · wᵀ in f32, for the few matrices whose results must not be coarse: gates, whose best experts may be close. A warp
// has a row and COLUMNS columns; along k, a lane adds every 128th four in order, and then lanes are added up.
#include "device.cuh"

struct Dense {
    const float* x;  // [rows, k]
    const void* w;   // [n, k], of the kernel's type
    float* out;      // [rows, n]
    u32 rows, n, k;
};

constexpr u32 WARPS = 8;
constexpr u32 COLUMNS = 4;

__device__ __forceinline__ Four four_of(const bf16* row, u32 at, u32 width) {
    Four four;
    if (width % 4 != 0) {
#pragma unroll
        for (u32 j = 0; j < 4; ++j) four.values[j] = at + j < width ? widen(row[at + j]) : 0.0f;
        return four;
    }
    Pair pair = load<Pair>(row + at);
    return {{float_of_bits(pair.words[0] << 16), float_of_bits(pair.words[0] & 0xffff0000),
             float_of_bits(pair.words[1] << 16), float_of_bits(pair.words[1] & 0xffff0000)}};
}

template <class W>
__device__ __forceinline__ void product(const Dense& p) {
    u32 lane = threadIdx.x % WARP, first = (blockIdx.x * WARPS + threadIdx.x / WARP) * COLUMNS;
    if (first >= p.n) return;
    const W* w = static_cast<const W*>(p.w);
    for (u32 row = blockIdx.y; row < p.rows; row += gridDim.y) {
        const float* x = p.x + u64(row) * p.k;
        float sums[COLUMNS] = {};
        for (u32 i = lane * 4; i < p.k; i += WARP * 4) {
            Four left = four_of(x, i, p.k);
#pragma unroll
            for (u32 j = 0; j < COLUMNS; ++j) {
                // A column too many is the last one's again.
                u32 column = first + j < p.n ? first + j : p.n - 1;
                Four right = four_of(w + u64(column) * p.k, i, p.k);
#pragma unroll
                for (u32 e = 0; e < 4; ++e) sums[j] = fmaf(left.values[e], right.values[e], sums[j]);
            }
        }
#pragma unroll
        for (u32 j = 0; j < COLUMNS; ++j) {
            float sum = warp_sum(sums[j]);
            if (lane == j && first + j < p.n) p.out[u64(row) * p.n + first + j] = sum;
        }
    }
}

KERNEL(dense_f32, WARPS * WARP, Dense) { product<float>(p); }
KERNEL(dense_bf16, WARPS * WARP, Dense) { product<bf16>(p); }
