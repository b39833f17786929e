// Products of at most 16 rows at a time, as decoding has them: weights are read once, and memory is the bound.
//
// A block has few columns and a warp for each part of k, so a matrix of few rows still has blocks for a whole GPU. A warp brings
// weights to shared memory by itself, SLOTS pieces of 2 KB in turn, and waits for no other before all have finished. Rows are
// read where they lie, a chunk ahead: a multiprocessor's blocks find them in its cache.
#pragma once
#include "product.cuh"

template <class W, bool PAIR>
struct NarrowTile {
    static constexpr u32 MATRICES = PAIR ? 2 : 1, HEIGHT = 16;
    // Of eight columns. With four bits a value, as many bytes of rows as with more bits need more columns.
    static constexpr u32 TILES = W::BITS == 4 ? 4 : 2, WIDTH = TILES * 8 / MATRICES;
    static constexpr u32 THREADS = WARP * PARTS;
    // A slot has DEPTH values of each row of weights, in units of 16 bytes.
    static constexpr u32 DEPTH = W::BITS == 16 ? 64 : 128, UNITS = DEPTH * W::BITS / 128, SLOTS = 4;
    static constexpr u32 SLOT_BYTES = TILES * 8 * UNITS * 16, STEPS_OF_SLOT = DEPTH / STEP;
    // Of a row of sums in shared memory.
    static constexpr u32 STRIDE = TILES * 8 + 8;
    static constexpr u32 COPIES = TILES * 8 * UNITS / WARP, ROWS_OF_COPY = WARP / UNITS;

    // Where a unit lies in a slot: so that the rows which are read at once lie in different banks. Every eighth row is alike.
    static __device__ constexpr u32 place(u32 row, u32 unit) {
        u32 other = W::BITS == 16 ? (row & 1) << 2 : W::BITS == 8 ? (row & 3) << 1 : row >> 1 & 3;
        return 16 * (row * UNITS + (unit ^ other));
    }

    struct Left {
        Wide x[2];
    };

    const Product& p;
    Rows rows;
    u32 lane, warp, first_column, begin, end;  // the part's values along k
    const bf16* x_rows[2];
    // What the lane copies: unit `lane % UNITS` of every ROWS_OF_COPY-th row.
    const u8* copied[COPIES];
    u8* slots;

    __device__ __forceinline__ NarrowTile(const Product& p, const Rows& rows, u8* slots_of_warp)
        : p(p), rows(rows), lane(threadIdx.x % WARP), warp(threadIdx.x / WARP), slots(slots_of_warp) {
        first_column = blockIdx.y * WIDTH;
        u32 values = steps_of_part(p.k) * STEP;
        begin = warp * values < p.k ? warp * values : p.k;
        end = begin + values < p.k ? begin + values : p.k;
#pragma unroll
        for (u32 i = 0; i < COPIES; ++i) {
            u32 row = i * ROWS_OF_COPY + lane / UNITS, column = first_column + row % WIDTH;
            u64 at = u64(column) * p.row_step * p.k + begin + lane % UNITS * (128 / W::BITS);
            auto matrix = reinterpret_cast<const u8*>(p.weights[row / WIDTH * p.experts + rows.expert]);
            copied[i] = column < p.n ? matrix + at * W::BITS / 8 : nullptr;
        }
#pragma unroll
        for (u32 half = 0; half < 2; ++half) {
            u32 row = half * 8 + lane / 4;
            u32 of_x = row < rows.count ? p.order ? p.order[rows.first + row] : rows.first + row : 0;
            x_rows[half] = p.x + u64(of_x) * p.k + begin + lane % 4 * 8;
        }
    }

    __device__ __forceinline__ void fetch(u32 slot) const {
        u32 at = slot * DEPTH;
        bool within = begin + at + lane % UNITS * (128 / W::BITS) < end;
#pragma unroll
        for (u32 i = 0; i < COPIES; ++i) {
            bool valid = within && copied[i];
            u8* to = slots + slot % SLOTS * SLOT_BYTES + place(i * ROWS_OF_COPY + lane / UNITS, lane % UNITS);
            copy_async(to, valid ? copied[i] + at * W::BITS / 8 : static_cast<const void*>(p.x), valid);
        }
    }

    // Rows g and g + 8 of chunk `chunk` of the part.
    __device__ __forceinline__ Left left(u32 chunk) const {
        Left left;
#pragma unroll
        for (u32 half = 0; half < 2; ++half) {
            bool valid = half * 8 + lane / 4 < rows.count && begin + chunk * CHUNK < end;
            left.x[half] = valid ? load<Wide>(x_rows[half] + chunk * CHUNK) : Wide{{0, 0, 0, 0}};
        }
        return left;
    }

    // 32 values along k.
    __device__ __forceinline__ void multiply(float (&sums)[TILES][4], const Wide (&x)[2], const u8* slot, u32 chunk) const {
        u32 byte = (chunk * CHUNK + lane % 4 * 8) * W::BITS / 8;
        const u8* row = slot + place(lane / 4, byte / 16) + byte % 16;
#pragma unroll
        for (u32 t = 0; t < TILES; ++t) {
            u32 w[4];
            W::unpack(row + t * 8 * UNITS * 16, w);
#pragma unroll
            for (u32 two = 0; two < 4; two += 2) {
                u32 a[4] = {x[0].words[two], x[1].words[two], x[0].words[two + 1], x[1].words[two + 1]};
                u32 b[2] = {w[two], w[two + 1]};
                mma_bf16(sums[t], a, b);
            }
        }
    }

    // The sums of this warp's part of k.
    __device__ __forceinline__ void add_part(float (&sums)[TILES][4]) const {
        u32 steps = divide_up(end - begin, STEP), count = divide_up(steps, STEPS_OF_SLOT);
#pragma unroll
        for (u32 slot = 0; slot < SLOTS - 1; ++slot) {
            if (slot < count) fetch(slot);
            copies_commit();
        }
        // A lane has the scales of one row of weights.
        u32 row = lane % (TILES * 8), first_step = begin / STEP;
        ScalesOfRow<W> next(p, row / WIDTH * p.experts + rows.expert, first_column + row % WIDTH, first_step);
        Left left_next = left(0);
        float scales[TILES][2];
        for (u32 step = 0; step < steps; ++step) {
            u32 slot = step / STEPS_OF_SLOT, chunk = step % STEPS_OF_SLOT * 2;
            if (chunk == 0) {
                copies_wait<SLOTS - 2>();
                warp_sync();
                // Into the slot that all lanes have finished with.
                if (slot + SLOTS - 1 < count) fetch(slot + SLOTS - 1);
                copies_commit();
            }
            auto now = next;
            if (step + 1 < steps) next.load_step(first_step + step + 1);
            const u8* w = slots + slot % SLOTS * SLOT_BYTES;
#pragma unroll
            for (u32 i = 0; i < 2; ++i) {
                Left left_now = left_next;
                left_next = left(step * 2 + i + 1);
                if constexpr (W::SCALED) {
                    if (now.changed[i]) {
#pragma unroll
                        for (u32 t = 0; t < TILES; ++t)
#pragma unroll
                            for (u32 odd = 0; odd < 2; ++odd) scales[t][odd] = shuffle(now.of[i], t * 8 + lane % 4 * 2 + odd);
                    }
                    float part[TILES][4] = {};
                    multiply(part, left_now.x, w, chunk + i);
                    fold(sums, part, scales);
                } else {
                    multiply(sums, left_now.x, w, chunk + i);
                }
            }
        }
    }

    static __device__ __forceinline__ void run(const Product& p) {
        static_assert(no_bank_twice(W::BITS, [](u32 lane) {
            u32 byte = lane % 4 * W::BITS;
            return place(lane / 4, byte / 16) + byte % 16;
        }), "w is read in conflict");
        static_assert(no_bank_twice(8, [](u32 lane) { return (lane / 4 * STRIDE + lane % 4 * 2) * 4; }), "sums are written in conflict");
        static_assert(PARTS * SLOTS * SLOT_BYTES <= MOST_SHARED, "a block has too much shared memory");
        Rows rows;
        if (!find(p, blockIdx.x, HEIGHT, rows)) return;
        // No more slots than a part has.
        u32 slots = divide_up(steps_of_part(p.k), STEPS_OF_SLOT);
        if (slots > SLOTS) slots = SLOTS;
        u32 of_slots = PARTS * slots * SLOT_BYTES, of_sums = PARTS * HEIGHT * STRIDE * 4;
        u8* memory = shared_bytes(of_slots > of_sums ? of_slots : of_sums);

        NarrowTile tile(p, rows, memory + threadIdx.x / WARP * slots * SLOT_BYTES);
        float sums[TILES][4] = {};
        if (tile.begin < tile.end) tile.add_part(sums);
        // Sums lie where slots were.
        block_sync();
        float* parts = reinterpret_cast<float*>(memory);
#pragma unroll
        for (u32 half = 0; half < 2; ++half) {
            u32 row = half * 8 + tile.lane / 4;
            float* to = parts + (tile.warp * HEIGHT + row) * STRIDE + tile.lane % 4 * 2;
            if (row >= rows.count) continue;
#pragma unroll
            for (u32 t = 0; t < TILES; ++t)
                store(to + t * 8, Pair{{bits_of_float(sums[t][half * 2]), bits_of_float(sums[t][half * 2 + 1])}});
        }
        block_sync();
        u32 count = divide_up(divide_up(p.k, STEP), steps_of_part(p.k));
        for (u32 i = threadIdx.x; i < rows.count * WIDTH; i += THREADS) {
            u32 row = i / WIDTH, column = tile.first_column + i % WIDTH;
            if (column >= p.out_width) continue;
            float totals[2] = {0.0f, 0.0f};
            for (u32 part = 0; part < count; ++part)
#pragma unroll
                for (u32 matrix = 0; matrix < MATRICES; ++matrix)
                    totals[matrix] += parts[(part * HEIGHT + row) * STRIDE + matrix * WIDTH + i % WIDTH];
            put_result<PAIR>(p, rows.expert, rows.first + row, column, totals[0], totals[1]);
        }
    }
};
