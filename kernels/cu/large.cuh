// Products in tiles of 128 rows, as prefills have them: each weight is used for many rows, and tensor cores are the bound.
#pragma once
#include "product.cuh"

// A warp computes MT · 16 rows and NT · 8 columns of each matrix, a block WM · WN such.
template <class W, bool PAIR, u32 MT, u32 NT, u32 WM, u32 WN, u32 STAGES>
struct LargeTile {
    static constexpr u32 THREADS = WARP * WM * WN;
    static constexpr u32 HEIGHT = 16 * MT * WM, WIDTH = 8 * NT * WN;
    static constexpr u32 MATRICES = PAIR ? 2 : 1, TILES = MATRICES * NT;
    // Of a stage, which is a step along k: sixteen bytes of x and of w.
    static constexpr u32 X_UNITS = STEP / 8, W_UNITS = STEP * W::BITS / 128;

    struct Shared {
        u8 x[STAGES][HEIGHT * X_UNITS * 16];
        u8 w[STAGES][MATRICES * WIDTH * W_UNITS * 16];
        // Of one step and the next, of both chunks, of each row of weights.
        float scales[2][2][W::SCALED ? MATRICES * WIDTH : 1];
        u32 rows[HEIGHT];
    };

    // Where a unit of 16 bytes lies in its row: so that the rows which are read at once lie in different banks. Every eighth row
    // is alike.
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
            u32 row = i / X_UNITS, unit = i % X_UNITS, at = step * STEP + unit * 8;
            bool valid = row < count && at < p.k;
            const bf16* from = valid ? p.x + u64(s.rows[row]) * p.k + at : p.x;
            copy_async(s.x[stage] + 16 * x_unit(row, unit), from, valid);
        }
        for (u32 i = threadIdx.x; i < MATRICES * WIDTH * W_UNITS; i += THREADS) {
            u32 row = i / W_UNITS, unit = i % W_UNITS, at = step * STEP + unit * (128 / W::BITS);
            u32 column = blockIdx.x * WIDTH + row % WIDTH;
            const u8* matrix = PAIR && row >= WIDTH ? matrices[1] : matrices[0];
            bool valid = column < p.n && at < p.k;
            u64 from = (u64(column) * p.row_step * p.k + at) * W::BITS / 8;
            copy_async(s.w[stage] + 16 * w_unit(row, unit), valid ? matrix + from : matrix, valid);
        }
    }

    float totals[MT][TILES][4];
    // Of the part of k that is under way.
    float sums[MT][TILES][4];

    // The first column of tile t, of the block's, in which a lane has results.
    static __device__ __forceinline__ u32 column_of(u32 t) {
        u32 lane = threadIdx.x % WARP, warp = threadIdx.x / WARP;
        return (warp % WN * NT + t % NT) * 8 + lane % 4 * 2;
    }

    // Of zeros behind the last 32 values nothing changes.
    __device__ __forceinline__ void add_step(const Shared& s, u32 step) {
        u32 lane = threadIdx.x % WARP, warp = threadIdx.x / WARP, g = lane / 4, c = lane % 4, stage = step % STAGES;
#pragma unroll(W::SCALED ? 1 : 2)
        for (u32 chunk = 0; chunk < 2; ++chunk) {
            u32 w[TILES][4], byte = (chunk * CHUNK + c * 8) * W::BITS / 8;
            const u8* w_row = s.w[stage] + 16 * w_unit(warp % WN * NT * 8 + g, byte / 16) + byte % 16;
            const u8* x_row = s.x[stage] + 16 * x_unit(warp / WN * MT * 16 + g, chunk * 4 + c);
            float scales[TILES][2];
#pragma unroll
            for (u32 t = 0; t < TILES; ++t) {
                W::unpack(w_row + (t / NT * WIDTH + t % NT * 8) * W_UNITS * 16, w[t]);
                if constexpr (W::SCALED) {
                    Pair pair = load<Pair>(&s.scales[step % 2][chunk][t / NT * WIDTH + column_of(t)]);
                    scales[t][0] = float_of_bits(pair.words[0]), scales[t][1] = float_of_bits(pair.words[1]);
                }
            }
#pragma unroll
            for (u32 i = 0; i < MT; ++i) {
                Wide x[2];
#pragma unroll
                for (u32 half = 0; half < 2; ++half) x[half] = load<Wide>(x_row + (i * 16 + half * 8) * X_UNITS * 16);
                if constexpr (W::SCALED) {
                    float part[TILES][4] = {};
                    multiply(part, x, w);
                    fold(sums[i], part, scales);
                } else {
                    multiply(sums[i], x, w);
                }
            }
        }
    }

    // 32 values along k of one row of tiles.
    static __device__ __forceinline__ void multiply(float (&sums)[TILES][4], const Wide (&x)[2], const u32 (&w)[TILES][4]) {
#pragma unroll
        for (u32 two = 0; two < 4; two += 2)
#pragma unroll
            for (u32 t = 0; t < TILES; ++t) {
                u32 a[4] = {x[0].words[two], x[1].words[two], x[0].words[two + 1], x[1].words[two + 1]};
                u32 b[2] = {w[t][two], w[t][two + 1]};
                mma_bf16(sums[t], a, b);
            }
    }

    __device__ __forceinline__ void end_part() {
#pragma unroll
        for (u32 i = 0; i < MT; ++i)
#pragma unroll
            for (u32 t = 0; t < TILES; ++t)
#pragma unroll
                for (u32 e = 0; e < 4; ++e) {
                    totals[i][t][e] += sums[i][t][e];
                    sums[i][t][e] = 0.0f;
                }
    }

    __device__ __forceinline__ void write(const Product& p, const Rows& tile) const {
        u32 lane = threadIdx.x % WARP, warp = threadIdx.x / WARP;
#pragma unroll
        for (u32 j = 0; j < NT; ++j)
#pragma unroll
            for (u32 e = 0; e < 4; ++e) {
                u32 column = blockIdx.x * WIDTH + column_of(j) + e % 2;
                if (column >= p.out_width) continue;
#pragma unroll
                for (u32 i = 0; i < MT; ++i) {
                    u32 row = (warp / WN * MT + i) * 16 + e / 2 * 8 + lane / 4;
                    if (row < tile.count)
                        put_result<PAIR>(p, tile.expert, tile.first + row, column, totals[i][j][e], totals[i][TILES - NT + j][e]);
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
        u32 steps = divide_up(p.k, STEP), of_part = steps_of_part(p.k), left = of_part;
        for (u32 step = 0; step < STAGES - 1; ++step) {
            if (step < steps) fetch(p, s, rows.count, matrices, step);
            copies_commit();
        }
        LargeTile tile = {};
        // A thread brings the scales of one row of weights, a step ahead.
        u32 row = threadIdx.x % (MATRICES * WIDTH);
        ScalesOfRow<W> scales(p, row / WIDTH * p.experts + rows.expert, blockIdx.x * WIDTH + row % WIDTH, 0);
        for (u32 step = 0; step < steps; ++step) {
            if constexpr (W::SCALED) {
                if (threadIdx.x < MATRICES * WIDTH)
                    s.scales[step % 2][0][row] = scales.of[0], s.scales[step % 2][1][row] = scales.of[1];
            }
            copies_wait<STAGES - 2>();
            block_sync();
            // Into the stage that everybody has finished with.
            u32 ahead = step + STAGES - 1;
            if (ahead < steps) fetch(p, s, rows.count, matrices, ahead);
            copies_commit();
            if (step + 1 < steps) scales.load_step(step + 1);
            tile.add_step(s, step);
            if (--left == 0 || step + 1 == steps) tile.end_part(), left = of_part;
        }
        tile.write(p, rows);
    }
};
