// What a product of rows with the matrices of their experts is asked for, and how a block finds its rows.
#pragma once
#include "device.cuh"

struct Product {
    const bf16* x;       // [.., k]
    const u32* order;    // null, or [rows]: the row of x that a row is of
    const u32* offsets;  // null, or [experts + 1]: where an expert's rows begin
    const u64* weights;  // [experts] addresses of matrices [n, k]; of a pair all gates, then all ups
    const u64* scales;   // as many, of [n / scale_rows, k / group]; null for bf16
    const u64* biases;   // null, or as many, of [n]
    void* out;           // [rows, out_width], f32; of a pair bf16
    u32 rows, experts, n, k;  // k is a multiple of 32
    u32 out_width;            // n, or up to the next multiple of 32: zeros are put behind it
    u32 row_step;             // rows of the memory of a matrix for one of the matrix
    u32 group, scale_rows;    // values that share a scale, along k (a multiple of 32) and along n
    u32 clamped;              // which activation
    float alpha, limit;
};

struct Rows {
    u32 expert, first, count;
};

// The rows of tile `tile`: tiles of an expert's rows, expert after expert. Every warp looks for itself.
__device__ __forceinline__ bool find(const Product& p, u32 tile, u32 height, Rows& found) {
    if (!p.offsets) {
        u32 first = tile * height;
        if (first >= p.rows) return false;
        found = {0, first, p.rows - first < height ? p.rows - first : height};
        return true;
    }
    u32 lane = threadIdx.x % WARP, before = 0;
    for (u32 base = 0; base < p.experts; base += WARP) {
        u32 expert = base + lane < p.experts ? base + lane : p.experts - 1;
        u32 begin = p.offsets[expert], end = base + lane < p.experts ? p.offsets[expert + 1] : begin;
        u32 tiles = divide_up(end - begin, height), sum = tiles;
#pragma unroll
        for (u32 step = 1; step < WARP; step *= 2) {
            u32 other = shuffle(sum, lane >= step ? lane - step : lane);
            if (lane >= step) sum += other;
        }
        u32 owners = ballot(before + sum > tile);
        if (owners) {
            u32 owner = first_bit(owners);
            u32 at = tile - before - shuffle(sum - tiles, owner);
            begin = shuffle(begin, owner) + at * height;
            end = shuffle(end, owner);
            found = {base + owner, begin, end - begin < height ? end - begin : height};
            return true;
        }
        before += shuffle(sum, WARP - 1);
    }
    return false;
}
