// out = x · wᵀ in f32, for the few matrices whose results must not be coarse: gates, whose best experts may be close. They have
// few columns, so a whole block shares a few of them: along k, a thread adds every 256th four in order, then lanes of a warp
// are added up, and then warps in order.
#include "device.cuh"

struct Dense {
    const float* x;  // [rows, k]
    const void* w;   // [n, k], of the kernel's type
    float* out;      // [rows, n]
    u32 rows, n, k;
};

constexpr u32 WARPS = 8;
// That a block has at once.
constexpr u32 ROWS = 4;
constexpr u32 COLUMNS = 2;

struct Sums {
    float of[WARPS][ROWS][COLUMNS];
};

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
    Sums& s = shared<Sums>();
    u32 lane = threadIdx.x % WARP, warp = threadIdx.x / WARP, first = blockIdx.x * COLUMNS;
    const W* w = static_cast<const W*>(p.w);
    for (u32 row = blockIdx.y * ROWS; row < p.rows; row += gridDim.y * ROWS) {
        float sums[ROWS][COLUMNS] = {};
#pragma unroll 2
        for (u32 i = threadIdx.x * 4; i < p.k; i += WARPS * WARP * 4) {
            Four right[COLUMNS];
#pragma unroll
            // A column too many is the last one's again.
            for (u32 j = 0; j < COLUMNS; ++j) right[j] = four_of(w + u64(first + j < p.n ? first + j : p.n - 1) * p.k, i, p.k);
#pragma unroll
            for (u32 r = 0; r < ROWS; ++r) {
                if (row + r >= p.rows) break;
                Four left = four_of(p.x + u64(row + r) * p.k, i, p.k);
#pragma unroll
                for (u32 j = 0; j < COLUMNS; ++j)
#pragma unroll
                    for (u32 e = 0; e < 4; ++e) sums[r][j] = fmaf(left.values[e], right[j].values[e], sums[r][j]);
            }
        }
#pragma unroll
        for (u32 r = 0; r < ROWS; ++r)
#pragma unroll
            for (u32 j = 0; j < COLUMNS; ++j) {
                float sum = warp_sum(sums[r][j]);
                if (lane == 0) s.of[warp][r][j] = sum;
            }
        block_sync();
        u32 r = threadIdx.x / COLUMNS, j = threadIdx.x % COLUMNS;
        if (r < ROWS && row + r < p.rows && first + j < p.n) {
            float sum = s.of[0][r][j];
#pragma unroll
            for (u32 other = 1; other < WARPS; ++other) sum += s.of[other][r][j];
            p.out[u64(row + r) * p.n + first + j] = sum;
        }
        block_sync();
    }
}

KERNEL(dense_f32, WARPS * WARP, Dense) { product<float>(p); }
KERNEL(dense_bf16, WARPS * WARP, Dense) { product<bf16>(p); }
