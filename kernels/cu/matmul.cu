// out = x · wᵀ on tensor cores: rows of bf16 with the matrix of their expert, in any format of weights; alone, or a gate and
// an up matrix with the activation behind both.
//
// Rows of one expert are neighbours (rows.cu makes them so), and a block computes a tile of some of them. Along k, numbers
// are added 16 at a time in one order whatever the tile, and rows of a tile do not meet: a row has the same bits alone and
// among others, in the narrow tiles of decoding and in the wide ones of a prefill.
//
// A tensor core takes values 2c, 2c+1, 2c+8, 2c+9 of sixteen from lane c of four. Which sixteen values of x and w these are does
// not matter as long as both agree: here lane c has eight neighbours of 32, which it reads at once, for two instructions.
#include "activation.cuh"
#include "product.cuh"
#include "weights.cuh"

// Values along k of a stage, and of two instructions.
constexpr u32 DEPTH = 64;
constexpr u32 CHUNK = 32;
// Sixteen bytes of a stage of x.
constexpr u32 X_UNITS = DEPTH / 8;

// A warp computes MT · 16 rows and NT · 8 columns of each matrix, a block WM · WN such.
template <class W, bool PAIR, u32 MT, u32 NT, u32 WM, u32 WN, u32 STAGES>
struct Tile {
    static constexpr u32 THREADS = WARP * WM * WN;
    static constexpr u32 HEIGHT = 16 * MT * WM, WIDTH = 8 * NT * WN;
    static constexpr u32 MATRICES = PAIR ? 2 : 1;
    static constexpr u32 W_BYTES = DEPTH * W::BITS / 8, W_UNITS = W_BYTES / 16;

    struct Shared {
        u8 x[STAGES][HEIGHT * X_UNITS * 16];
        u8 w[STAGES][MATRICES * WIDTH * W_BYTES];
        u32 rows[HEIGHT];
    };

    // Where a unit of 16 bytes lies in its row: so that the rows which are read at once lie in different banks.
    static __device__ constexpr u32 x_unit(u32 row, u32 unit) { return row * X_UNITS + (unit ^ (row & 1) << 2); }
    static __device__ constexpr u32 w_unit(u32 row, u32 unit) {
        u32 other = W_UNITS == 8 ? (row & 1) << 2 : W_UNITS == 4 ? (row >> 1 & 1) << 1 : row >> 2 & 1;
        return row * W_UNITS + (unit ^ other);
    }

    // Stage number `step` of the tile's rows and of its matrices.
    static __device__ __forceinline__ void fetch(const Product& p, Shared& s, u32 count, const u8* const (&matrices)[2],
                                                 u32 step) {
        u32 stage = step % STAGES;
        for (u32 i = threadIdx.x; i < HEIGHT * X_UNITS; i += THREADS) {
            u32 row = i / X_UNITS, unit = i % X_UNITS, at = step * DEPTH + unit * 8;
            bool valid = row < count && at < p.k;
            const bf16* from = valid ? p.x + u64(s.rows[row]) * p.k + at : p.x;
            copy_async(s.x[stage] + 16 * x_unit(row, unit), from, valid);
        }
        for (u32 i = threadIdx.x; i < MATRICES * WIDTH * W_UNITS; i += THREADS) {
            u32 row = i / W_UNITS, unit = i % W_UNITS, at = step * DEPTH + unit * (128 / W::BITS);
            u32 column = blockIdx.x * WIDTH + row % WIDTH;
            const u8* matrix = PAIR && row >= WIDTH ? matrices[1] : matrices[0];
            bool valid = column < p.n && at < p.k;
            u64 from = (u64(column) * p.row_step * p.k + at) * W::BITS / 8;
            copy_async(s.w[stage] + 16 * w_unit(row, unit), valid ? matrix + from : matrix, valid);
        }
    }

    float sums[MATRICES][MT][NT][4];
    // Of the group that is under way.
    float part[W::SCALED ? MATRICES : 1][W::SCALED ? MT : 1][W::SCALED ? NT : 1][4];

    __device__ __forceinline__ void clear() {
#pragma unroll
        for (u32 matrix = 0; matrix < MATRICES; ++matrix)
#pragma unroll
            for (u32 i = 0; i < MT; ++i)
#pragma unroll
                for (u32 j = 0; j < NT; ++j)
#pragma unroll
                    for (u32 e = 0; e < 4; ++e) {
                        sums[matrix][i][j][e] = 0.0f;
                        if constexpr (W::SCALED) part[matrix][i][j][e] = 0.0f;
                    }
    }

    // Of a stage 32 values along k.
    __device__ __forceinline__ void multiply(const Shared& s, u32 stage, u32 chunk) {
        u32 lane = threadIdx.x % WARP, warp = threadIdx.x / WARP, g = lane / 4, c = lane % 4;
        Wide x[MT][2];
#pragma unroll
        for (u32 i = 0; i < MT; ++i)
#pragma unroll
            for (u32 half = 0; half < 2; ++half) {
                u32 row = (warp / WN * MT + i) * 16 + half * 8 + g;
                x[i][half] = load<Wide>(s.x[stage] + 16 * x_unit(row, chunk * 4 + c));
            }
#pragma unroll
        for (u32 matrix = 0; matrix < MATRICES; ++matrix)
#pragma unroll
            for (u32 j = 0; j < NT; ++j) {
                u32 row = matrix * WIDTH + (warp % WN * NT + j) * 8 + g, byte = (chunk * CHUNK + c * 8) * W::BITS / 8;
                u32 w[4];
                W::unpack(s.w[stage] + 16 * w_unit(row, byte / 16) + byte % 16, w);
#pragma unroll
                for (u32 i = 0; i < MT; ++i)
#pragma unroll
                    for (u32 two = 0; two < 4; two += 2) {
                        u32 a[4] = {x[i][0].words[two], x[i][1].words[two], x[i][0].words[two + 1], x[i][1].words[two + 1]};
                        u32 b[2] = {w[two], w[two + 1]};
                        if constexpr (W::SCALED) mma_bf16(part[matrix][i][j], a, b);
                        else mma_bf16(sums[matrix][i][j], a, b);
                    }
            }
    }

    // Adds the finished group times its scales.
    __device__ __forceinline__ void fold(const Product& p, u32 expert, u32 group) {
        u32 lane = threadIdx.x % WARP, warp = threadIdx.x / WARP, groups = divide_up(p.k, p.group);
#pragma unroll
        for (u32 matrix = 0; matrix < MATRICES; ++matrix) {
            auto scales = reinterpret_cast<const typename W::Scale*>(p.scales[matrix * p.experts + expert]);
#pragma unroll
            for (u32 j = 0; j < NT; ++j)
#pragma unroll
                for (u32 odd = 0; odd < 2; ++odd) {
                    u32 column = blockIdx.x * WIDTH + (warp % WN * NT + j) * 8 + lane % 4 * 2 + odd;
                    u64 row = column < p.n ? u64(column) * p.row_step / p.scale_rows : 0;
                    float scale = factor_of(scales[row * groups + group]);
#pragma unroll
                    for (u32 i = 0; i < MT; ++i)
#pragma unroll
                        for (u32 e = odd; e < 4; e += 2) {
                            sums[matrix][i][j][e] = fmaf(part[matrix][i][j][e], scale, sums[matrix][i][j][e]);
                            part[matrix][i][j][e] = 0.0f;
                        }
                }
        }
    }

    __device__ __forceinline__ void write(const Product& p, const Rows& tile) const {
        u32 lane = threadIdx.x % WARP, warp = threadIdx.x / WARP;
        auto bias = [&p, &tile](u32 matrix, u32 column) {
            return p.biases ? reinterpret_cast<const float*>(p.biases[matrix * p.experts + tile.expert])[column] : 0.0f;
        };
#pragma unroll
        for (u32 j = 0; j < NT; ++j)
#pragma unroll
            for (u32 odd = 0; odd < 2; ++odd) {
                u32 column = blockIdx.x * WIDTH + (warp % WN * NT + j) * 8 + lane % 4 * 2 + odd;
                if (column >= p.out_width) continue;
                bool is = column < p.n;
                float first = is ? bias(0, column) : 0.0f, second = PAIR && is ? bias(1, column) : 0.0f;
#pragma unroll
                for (u32 i = 0; i < MT; ++i)
#pragma unroll
                    for (u32 half = 0; half < 2; ++half) {
                        u32 row = (warp / WN * MT + i) * 16 + half * 8 + lane / 4, e = half * 2 + odd;
                        if (row >= tile.count) continue;
                        u64 at = u64(tile.first + row) * p.out_width + column;
                        float x = sums[0][i][j][e] + first;
                        if constexpr (PAIR) {
                            float up = sums[1][i][j][e] + second;
                            x = p.clamped ? ClampedSwiglu{p.alpha, p.limit}(x, up) : SiluMul()(x, up);
                            static_cast<bf16*>(p.out)[at] = narrow(is ? x : 0.0f);
                        } else {
                            static_cast<float*>(p.out)[at] = is ? x : 0.0f;
                        }
                    }
            }
    }

    static __device__ __forceinline__ void run(const Product& p) {
        static_assert(sizeof(Shared) <= MOST_SHARED, "a block has too much shared memory");
        static_assert(no_bank_twice(16, [](u32 lane) { return 16 * x_unit(lane / 4, lane % 4); }), "x is read in conflict");
        static_assert(no_bank_twice(W::BITS, [](u32 lane) {
            u32 byte = lane % 4 * W::BITS;
            return 16 * w_unit(lane / 4, byte / 16) + byte % 16;
        }), "w is read in conflict");
        Rows rows;
        if (!find(p, blockIdx.y, HEIGHT, rows)) return;
        Shared& s = shared<Shared>();
        for (u32 i = threadIdx.x; i < rows.count; i += THREADS) s.rows[i] = p.order ? p.order[rows.first + i] : rows.first + i;
        block_sync();
        const u8* matrices[2];
#pragma unroll
        for (u32 i = 0; i < MATRICES; ++i) matrices[i] = reinterpret_cast<const u8*>(p.weights[i * p.experts + rows.expert]);
        u32 steps = divide_up(p.k, DEPTH), chunks = p.k / CHUNK, of_group = W::SCALED ? p.group / CHUNK : 1;
        for (u32 step = 0; step < STAGES - 1; ++step) {
            if (step < steps) fetch(p, s, rows.count, matrices, step);
            copies_commit();
        }
        Tile tile;
        tile.clear();
        u32 in_group = 0, group = 0;
        for (u32 step = 0; step < steps; ++step) {
            copies_wait<STAGES - 2>();
            block_sync();
            // Into the stage that everybody has finished with.
            u32 ahead = step + STAGES - 1;
            if (ahead < steps) fetch(p, s, rows.count, matrices, ahead);
            copies_commit();
#pragma unroll
            for (u32 chunk = 0; chunk < DEPTH / CHUNK; ++chunk) {
                u32 at = step * (DEPTH / CHUNK) + chunk;
                if (at >= chunks) break;
                tile.multiply(s, step % STAGES, chunk);
                if constexpr (W::SCALED) {
                    if (++in_group == of_group || at + 1 == chunks) {
                        tile.fold(p, rows.expert, group++);
                        in_group = 0;
                    }
                }
            }
        }
        tile.write(p, rows);
    }
};

template <class W>
using Narrow = Tile<W, false, 1, 2, 1, 4, 4>;
template <class W>
using NarrowPair = Tile<W, true, 1, 1, 1, 4, 4>;
template <class W>
using Large = Tile<W, false, 4, 4, 2, 4, 3>;
template <class W>
using LargePair = Tile<W, true, 4, 2, 2, 4, 3>;

KERNEL(matmul_bf16_narrow, 128, Product) { Narrow<Bf16>::run(p); }
KERNEL(matmul_bf16_large, 256, Product) { Large<Bf16>::run(p); }
KERNEL(matmul_bf16_pair_narrow, 128, Product) { NarrowPair<Bf16>::run(p); }
KERNEL(matmul_bf16_pair_large, 256, Product) { LargePair<Bf16>::run(p); }
KERNEL(matmul_int8_narrow, 128, Product) { Narrow<Int8>::run(p); }
KERNEL(matmul_int8_large, 256, Product) { Large<Int8>::run(p); }
KERNEL(matmul_int8_pair_narrow, 128, Product) { NarrowPair<Int8>::run(p); }
KERNEL(matmul_int8_pair_large, 256, Product) { LargePair<Int8>::run(p); }
KERNEL(matmul_fp8_narrow, 128, Product) { Narrow<Fp8>::run(p); }
KERNEL(matmul_fp8_large, 256, Product) { Large<Fp8>::run(p); }
KERNEL(matmul_fp8_pair_narrow, 128, Product) { NarrowPair<Fp8>::run(p); }
KERNEL(matmul_fp8_pair_large, 256, Product) { LargePair<Fp8>::run(p); }
KERNEL(matmul_int4_narrow, 128, Product) { Narrow<Int4>::run(p); }
KERNEL(matmul_int4_large, 256, Product) { Large<Int4>::run(p); }
KERNEL(matmul_int4_pair_narrow, 128, Product) { NarrowPair<Int4>::run(p); }
KERNEL(matmul_int4_pair_large, 256, Product) { LargePair<Int4>::run(p); }
KERNEL(matmul_mxfp4_narrow, 128, Product) { Narrow<Mxfp4>::run(p); }
KERNEL(matmul_mxfp4_large, 256, Product) { Large<Mxfp4>::run(p); }
KERNEL(matmul_mxfp4_pair_narrow, 128, Product) { NarrowPair<Mxfp4>::run(p); }
KERNEL(matmul_mxfp4_pair_large, 256, Product) { LargePair<Mxfp4>::run(p); }
