// Causal attention with grouped heads over a paged cache of bf16, and latent attention in its absorbed form, where one row
// of the cache is a token's key and its beginning the value of all heads.
//
// Queries that read the same keys are the rows of a tile: the heads of a group, token after token. A block walks over keys in
// tiles of 32 with a running softmax, and folds what it has into the row's total at every 256th key, counted from the
// sequence's beginning. A decode spreads these chunks over blocks, and `attention_merge` folds them in the same order: so a
// row has the same bits in a prefill, in any chunk of one, and in a decode. A tile in which a row sees no key changes
// nothing of it. Weights are rounded to bf16 for the second product, and summed up as they are then.
#include "device.cuh"
#include "softmax.cuh"

struct Attention {
    const float* q;          // [rows, q_heads, D]
    const bf16* keys;        // [block, kv_heads, block_size, D]
    const bf16* values;      // the same; null for latents
    const float* sinks;      // null, or [q_heads]
    const u32* first_rows;   // [sequences + 1]
    const u32* contexts;     // [sequences]: tokens in the cache
    const u32* tables;       // [sequences, table_width]: blocks
    float* out;              // [rows, q_heads, DV]
    float* parts;            // null, or [rows, q_heads, chunks, DV + 2]: a chunk's sums, maximum and sum of weights
    u32 q_heads, kv_heads, block_size, table_width;
    u32 chunks;  // that a sequence is spread over: 1, or all that the longest context has
    u32 window;  // 0 if a token sees all before it
    float scale;
};

__device__ constexpr u32 round_up(u32 a, u32 b) { return (a + b - 1) / b * b; }

// TILES times 16 rows; PARTS warps share the dimensions of the values of each. STAGES tiles of keys are in shared memory or on
// their way to it: the more, the fewer blocks it takes to keep memory busy.
template <u32 D, u32 DV, bool LATENT, u32 TILES, u32 PARTS, u32 STAGES>
struct Flash {
    static constexpr u32 THREADS = WARP * TILES * PARTS;
    // Units of 16 bytes: of the dimensions, padded to whole instructions, and of a row in shared memory.
    static constexpr u32 UNITS = round_up(D, 32) / 8, STRIDE = round_up(UNITS, 8), V_STRIDE = round_up(DV / 8, 8);
    // More would leave too few registers.
    static constexpr bool Q_HELD = PARTS == 1 && D <= 96;
    static constexpr u32 OWN = DV / PARTS / 8;
    // Of a row of scores that warps exchange.
    static constexpr u32 SCORES = KEYS + 8;

    struct Shared {
        u8 q[TILES * 16 * STRIDE * 16];
        u8 keys[STAGES][KEYS * STRIDE * 16];
        u8 values[STAGES][LATENT ? 16 : KEYS * V_STRIDE * 16];
        float scores[PARTS == 1 ? 4 : TILES * 16 * SCORES];
    };

    // Eight rows lie in different banks at one unit, two neighbours at four.
    static __device__ constexpr u32 place(u32 row, u32 unit, u32 stride) {
        return 16 * (row * stride + (unit ^ ((row & 1) << 2 | (row >> 1 & 3))));
    }

    static __device__ __forceinline__ void fetch(const Attention& p, Shared& s, u32 sequence, u32 tile) {
        u32 stage = tile % STAGES, context = p.contexts[sequence];
        const u32* table = p.tables + u64(sequence) * p.table_width;
        for (u32 i = threadIdx.x; i < KEYS * UNITS; i += THREADS) {
            u32 row = i / UNITS, unit = i % UNITS, key = tile * KEYS + row;
            bool valid = key < context && unit * 8 < D;
            u64 at = 0;
            if (valid) at = ((u64(table[key / p.block_size]) * p.kv_heads + blockIdx.y) * p.block_size + key % p.block_size) * D + unit * 8;
            copy_async(s.keys[stage] + place(row, unit, STRIDE), p.keys + at, valid);
            if constexpr (!LATENT) {
                if (unit * 8 < DV) copy_async(s.values[stage] + place(row, unit, V_STRIDE), p.values + at, valid);
            }
        }
    }

    static __device__ __forceinline__ void fetch_queries(const Attention& p, Shared& s, u32 first_row, u32 first, u32 count) {
        u32 group = p.q_heads / p.kv_heads;
        for (u32 i = threadIdx.x; i < TILES * 16 * UNITS; i += THREADS) {
            u32 row = i / UNITS, unit = i % UNITS;
            Wide eight = {{0, 0, 0, 0}};
            if (row < count && unit * 8 < D) {
                u32 flat = first + row;
                const float* q = p.q + ((u64(first_row) + flat / group) * p.q_heads + blockIdx.y * group + flat % group) * D + unit * 8;
                Four low = load<Four>(q), high = load<Four>(q + 4);
                eight = {{pack_bf16(low.values[0], low.values[1]), pack_bf16(low.values[2], low.values[3]),
                          pack_bf16(high.values[0], high.values[1]), pack_bf16(high.values[2], high.values[3])}};
            }
            store(s.q + place(row, unit, STRIDE), eight);
        }
    }

    static __device__ __forceinline__ void run(const Attention& p) {
        static_assert(sizeof(Shared) <= MOST_SHARED, "a block has too much shared memory");
        static_assert(no_bank_twice(16, [](u32 lane) { return place(lane / 4, lane % 4, STRIDE); }), "keys are read in conflict");
        static_assert(no_bank_twice(16, [](u32 lane) { return place(lane, 0, V_STRIDE); }), "values are read in conflict");
        u32 lane = threadIdx.x % WARP, warp = threadIdx.x / WARP, g = lane / 4, c = lane % 4;
        u32 tile_of_rows = warp / PARTS, part = warp % PARTS;
        u32 sequence = blockIdx.z / p.chunks, group = p.q_heads / p.kv_heads;
        u32 first_row = p.first_rows[sequence], rows = p.first_rows[sequence + 1] - first_row;
        u32 before = p.contexts[sequence] - rows;
        u32 first = blockIdx.x * TILES * 16;
        if (first >= rows * group) return;
        u32 count = rows * group - first < TILES * 16 ? rows * group - first : TILES * 16;

        // The keys that any row of the block sees, in tiles.
        u32 lowest = before + first / group + 1, end = before + (first + count - 1) / group + 1;
        u32 tile = (p.window && lowest > p.window ? lowest - p.window : 0) / KEYS, last = divide_up(end, KEYS);
        if (p.parts) {
            u32 chunk = blockIdx.z % p.chunks * TILES_OF_CHUNK;
            tile = tile < chunk ? chunk : tile;
            last = last < chunk + TILES_OF_CHUNK ? last : chunk + TILES_OF_CHUNK;
            if (tile >= last) return;
        }

        // Of the lane's rows g and g + 8 of its tile: the keys that they see.
        u32 from[2], to[2];
#pragma unroll
        for (u32 half = 0; half < 2; ++half) {
            u32 row = tile_of_rows * 16 + half * 8 + g;
            to[half] = row < count ? before + (first + row) / group + 1 : 0;
            from[half] = p.window && to[half] > p.window ? to[half] - p.window : 0;
        }

        Shared& s = shared<Shared>();
#pragma unroll
        for (u32 ahead = 0; ahead < STAGES - 1; ++ahead) {
            if (ahead == 0 || tile + ahead < last) fetch(p, s, sequence, tile + ahead);
            copies_commit();
        }
        fetch_queries(p, s, first_row, first, count);
        block_sync();
        Wide q[Q_HELD ? UNITS / 4 : 1][2];
        auto query = [&](u32 four, u32 half) {
            return load<Wide>(s.q + place(tile_of_rows * 16 + half * 8 + g, four * 4 + c, STRIDE));
        };
        if constexpr (Q_HELD) {
#pragma unroll
            for (u32 four = 0; four < UNITS / 4; ++four) q[four][0] = query(four, 0), q[four][1] = query(four, 1);
        }

        float scale = p.scale * LOG2_E;
        Total total[2] = {{-infinity(), 0.0f}, {-infinity(), 0.0f}};
        float most[2] = {-infinity(), -infinity()}, sum[2] = {0.0f, 0.0f};
        float totals[OWN][4], sums[OWN][4];
#pragma unroll
        for (u32 j = 0; j < OWN; ++j)
#pragma unroll
            for (u32 e = 0; e < 4; ++e) totals[j][e] = sums[j][e] = 0.0f;

        for (; tile < last; ++tile) {
            if (tile + STAGES - 1 < last) fetch(p, s, sequence, tile + STAGES - 1);
            copies_commit();
            copies_wait<STAGES - 1>();
            block_sync();
            u32 stage = tile % STAGES;

            // Scores of this warp's share of the keys, then of all.
            float scores[4][4];
#pragma unroll
            for (u32 j = 0; j < 4; ++j)
#pragma unroll
                for (u32 e = 0; e < 4; ++e) scores[j][e] = 0.0f;
#pragma unroll
            for (u32 four = 0; four < UNITS / 4; ++four) {
                Wide a[2];
                if constexpr (Q_HELD) a[0] = q[four][0], a[1] = q[four][1];
                else a[0] = query(four, 0), a[1] = query(four, 1);
#pragma unroll
                for (u32 j = 0; j < 4 / PARTS; ++j) {
                    u32 row = (part * (4 / PARTS) + j) * 8 + g;
                    Wide key = load<Wide>(s.keys[stage] + place(row, four * 4 + c, STRIDE));
#pragma unroll
                    for (u32 two = 0; two < 4; two += 2) {
                        u32 left[4] = {a[0].words[two], a[1].words[two], a[0].words[two + 1], a[1].words[two + 1]};
                        u32 right[2] = {key.words[two], key.words[two + 1]};
                        mma_bf16(scores[j], left, right);
                    }
                }
            }
            if constexpr (PARTS > 1) {
                float* rows_of_scores = s.scores + tile_of_rows * 16 * SCORES;
#pragma unroll
                for (u32 j = 0; j < 4 / PARTS; ++j)
#pragma unroll
                    for (u32 e = 0; e < 4; ++e)
                        rows_of_scores[(e / 2 * 8 + g) * SCORES + (part * (4 / PARTS) + j) * 8 + 2 * c + e % 2] = scores[j][e];
                block_sync();
#pragma unroll
                for (u32 j = 0; j < 4; ++j)
#pragma unroll
                    for (u32 e = 0; e < 4; ++e) scores[j][e] = rows_of_scores[(e / 2 * 8 + g) * SCORES + j * 8 + 2 * c + e % 2];
            }

            u32 weights[4][2];
#pragma unroll
            for (u32 half = 0; half < 2; ++half) {
                float best = most[half];
#pragma unroll
                for (u32 j = 0; j < 4; ++j)
#pragma unroll
                    for (u32 odd = 0; odd < 2; ++odd) {
                        u32 key = tile * KEYS + j * 8 + 2 * c + odd;
                        float& x = scores[j][half * 2 + odd];
                        x = key >= from[half] && key < to[half] ? x * scale : -infinity();
                        best = fmaxf(best, x);
                    }
                best = fmaxf(best, shuffle_xor(best, 1));
                best = fmaxf(best, shuffle_xor(best, 2));
                float base = best == -infinity() ? 0.0f : best, factor = exp2_fast(most[half] - base), of_tile = 0.0f;
                most[half] = best;
#pragma unroll
                for (u32 j = 0; j < 4; ++j) {
                    u32 pair = pack_bf16(exp2_fast(scores[j][half * 2] - base), exp2_fast(scores[j][half * 2 + 1] - base));
                    weights[j][half] = pair;
                    of_tile += float_of_bits(pair << 16);
                    of_tile += float_of_bits(pair & 0xffff0000);
                }
                sum[half] = fmaf(sum[half], factor, of_tile);
#pragma unroll
                for (u32 j = 0; j < OWN; ++j) {
                    sums[j][half * 2] *= factor;
                    sums[j][half * 2 + 1] *= factor;
                }
            }

            const u8* values = LATENT ? s.keys[stage] : s.values[stage];
            constexpr u32 stride = LATENT ? STRIDE : V_STRIDE;
#pragma unroll
            for (u32 j = 0; j < OWN; ++j) {
                u32 r[4];
                load_transposed(r, values + place(lane, part * OWN + j, stride));
#pragma unroll
                for (u32 two = 0; two < 2; ++two) {
                    u32 left[4] = {weights[two * 2][0], weights[two * 2][1], weights[two * 2 + 1][0], weights[two * 2 + 1][1]};
                    u32 right[2] = {r[two * 2], r[two * 2 + 1]};
                    mma_bf16(sums[j], left, right);
                }
            }
            // Before the stage is written again.
            block_sync();
            if (p.parts || (tile % TILES_OF_CHUNK != TILES_OF_CHUNK - 1 && tile + 1 != last)) continue;

#pragma unroll
            for (u32 half = 0; half < 2; ++half) {
                float of_chunk = quad_sum(sum[half]), keep, take;
                total[half].fold(most[half], of_chunk, keep, take);
#pragma unroll
                for (u32 j = 0; j < OWN; ++j)
#pragma unroll
                    for (u32 e = half * 2; e < half * 2 + 2; ++e) {
                        totals[j][e] = fmaf(totals[j][e], keep, sums[j][e] * take);
                        sums[j][e] = 0.0f;
                    }
                most[half] = -infinity(), sum[half] = 0.0f;
            }
        }

#pragma unroll
        for (u32 half = 0; half < 2; ++half) {
            float of_chunk = quad_sum(sum[half]);
            u32 row = tile_of_rows * 16 + half * 8 + g;
            if (row >= count) continue;
            u32 flat = first + row, head = blockIdx.y * group + flat % group;
            u64 at = (u64(first_row) + flat / group) * p.q_heads + head;
            if (p.parts) {
                float* to = p.parts + (at * p.chunks + blockIdx.z % p.chunks) * (DV + 2);
                if (part == 0 && c == 0) to[DV] = most[half], to[DV + 1] = of_chunk;
#pragma unroll
                for (u32 j = 0; j < OWN; ++j)
#pragma unroll
                    for (u32 odd = 0; odd < 2; ++odd) to[(part * OWN + j) * 8 + 2 * c + odd] = sums[j][half * 2 + odd];
                continue;
            }
            float factor = total[half].finish(p.sinks, head);
#pragma unroll
            for (u32 j = 0; j < OWN; ++j)
#pragma unroll
                for (u32 odd = 0; odd < 2; ++odd)
                    p.out[at * DV + (part * OWN + j) * 8 + 2 * c + odd] = totals[j][half * 2 + odd] * factor;
        }
    }

    static __device__ __forceinline__ float quad_sum(float x) {
        x += shuffle_xor(x, 1);
        return x + shuffle_xor(x, 2);
    }
};

KERNEL(attention_64_prefill, 128, Attention) { Flash<64, 64, false, 4, 1, 2>::run(p); }
KERNEL(attention_64_decode, 128, Attention) { Flash<64, 64, false, 1, 4, 4>::run(p); }
KERNEL(attention_80_prefill, 128, Attention) { Flash<80, 80, false, 4, 1, 2>::run(p); }
KERNEL(attention_80_decode, 64, Attention) { Flash<80, 80, false, 1, 2, 4>::run(p); }
KERNEL(attention_96_prefill, 128, Attention) { Flash<96, 96, false, 4, 1, 2>::run(p); }
KERNEL(attention_96_decode, 32, Attention) { Flash<96, 96, false, 1, 1, 4>::run(p); }
KERNEL(attention_128_prefill, 128, Attention) { Flash<128, 128, false, 4, 1, 2>::run(p); }
KERNEL(attention_128_decode, 128, Attention) { Flash<128, 128, false, 1, 4, 4>::run(p); }
KERNEL(attention_192_prefill, 128, Attention) { Flash<192, 192, false, 2, 2, 2>::run(p); }
KERNEL(attention_192_decode, 128, Attention) { Flash<192, 192, false, 1, 4, 3>::run(p); }
KERNEL(attention_256_prefill, 256, Attention) { Flash<256, 256, false, 2, 4, 2>::run(p); }
KERNEL(attention_256_decode, 128, Attention) { Flash<256, 256, false, 1, 4, 2>::run(p); }
// 512 of latent and 64 of rotated key: DeepSeek's, and all that took it over.
KERNEL(attention_latent, 128, Attention) { Flash<576, 512, true, 1, 4, 2>::run(p); }
