// What products of rows with matrices have in common: where rows and matrices are, in which order numbers are added along k,
// and what is written.
//
// k is cut into PARTS parts of whole steps of 64 values. Within a part, numbers are added 16 at a time; those of a scaled
// format only up to 32, whose sum times their scale is added to the part's. Parts are added in their order. All of this follows
// from k and the format alone, so a row has the same bits in any tile.
//
// A tensor core takes values 2c, 2c+1, 2c+8, 2c+9 of sixteen from lane c of four. Which sixteen values of x and w these are does
// not matter as long as both agree: here lane c has eight neighbours of 32, which it reads at once, for two instructions.
#pragma once
#include "activation.cuh"
#include "weights.cuh"

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

// Parts of k.
constexpr u32 PARTS = 8;
// Values along k that are fetched at once, and of two instructions.
constexpr u32 STEP = 64;
constexpr u32 CHUNK = 32;

// Steps of a part of k; the last ones may have fewer, or none.
__device__ __forceinline__ u32 steps_of_part(u32 k) { return divide_up(divide_up(k, STEP), PARTS); }

struct Rows {
    u32 expert, first, count;
};

// The rows of tile `tile`: tiles of an expert's rows, expert after expert. Every warp looks for itself: each lane counts the
// tiles of some experts.
__device__ __forceinline__ bool find(const Product& p, u32 tile, u32 height, Rows& found) {
    if (!p.offsets) {
        u32 first = tile * height;
        if (first >= p.rows) return false;
        found = {0, first, p.rows - first < height ? p.rows - first : height};
        return true;
    }
    u32 lane = threadIdx.x % WARP, share = divide_up(p.experts, WARP), tiles = 0;
    u32 expert = lane * share, end = expert + share < p.experts ? expert + share : p.experts;
#pragma unroll 4
    for (u32 i = expert; i < end; ++i) tiles += divide_up(p.offsets[i + 1] - p.offsets[i], height);
    u32 sum = tiles;
#pragma unroll
    for (u32 step = 1; step < WARP; step *= 2) {
        u32 other = shuffle(sum, lane >= step ? lane - step : lane);
        if (lane >= step) sum += other;
    }
    u32 owners = ballot(sum > tile);
    if (!owners) return false;
    u32 owner = first_bit(owners), at = tile - shuffle(sum - tiles, owner);
    for (expert = owner * share;; ++expert) {
        u32 first = p.offsets[expert], last = p.offsets[expert + 1], own = divide_up(last - first, height);
        if (at < own) {
            first += at * height;
            found = {expert, first, last - first < height ? last - first : height};
            return true;
        }
        at -= own;
    }
}

// The groups that the 32 values of one chunk after another belong to.
struct Groups {
    u32 chunks, group, left;

    __device__ __forceinline__ Groups(const Product& p, u32 chunk) : chunks(p.group / CHUNK) {
        group = chunk / chunks;
        left = chunks - chunk % chunks;
    }
    // Whether the next chunk is the first of its group.
    __device__ __forceinline__ bool begins() const { return left == chunks; }
    __device__ __forceinline__ u32 next() {
        u32 now = group;
        if (--left == 0) ++group, left = chunks;
        return now;
    }
};

// The scales of one row of weights, step after step.
template <class W>
struct ScalesOfRow {
    const typename W::Scale* scales;
    Groups groups;
    u32 last_chunk;
    // Of the step's chunks, and whether they are others than the chunk's before.
    float of[2];
    bool changed[2];

    // Row `column` of matrix number `matrix`, from step `step` on. Of a row behind the last one it has some other's.
    __device__ __forceinline__ ScalesOfRow(const Product& p, u32 matrix, u32 column, u32 step)
        : groups(p, step * (STEP / CHUNK)), last_chunk(p.k / CHUNK - 1), of{0.0f, 0.0f}, changed{true, true} {
        u64 row = column < p.n ? u64(column) * p.row_step / p.scale_rows : 0;
        scales = reinterpret_cast<const typename W::Scale*>(p.scales[matrix]) + row * divide_up(p.k, p.group);
        of[1] = factor_of(scales[groups.group]);
        load_step(step);
        changed[0] = true;
    }

    __device__ __forceinline__ void load_step(u32 step) {
        changed[0] = groups.begins();
        u32 group = groups.next();
        of[0] = changed[0] ? factor_of(scales[group]) : of[1];
        // Behind the last chunk there are zeros, which any number may be multiplied with.
        changed[1] = groups.begins() && step * (STEP / CHUNK) < last_chunk;
        group = groups.next();
        of[1] = changed[1] ? factor_of(scales[group]) : of[0];
    }
};

// Formats without scales have nothing here.
template <>
struct ScalesOfRow<Bf16> {
    __device__ __forceinline__ ScalesOfRow(const Product&, u32, u32, u32) {}
    __device__ __forceinline__ void load_step(u32) {}
};

// sums += part · scale, whose columns are a lane's 2c and 2c + 1 of each tile.
template <u32 TILES>
__device__ __forceinline__ void fold(float (&sums)[TILES][4], const float (&part)[TILES][4], const float (&scales)[TILES][2]) {
#pragma unroll
    for (u32 t = 0; t < TILES; ++t)
#pragma unroll
        for (u32 e = 0; e < 4; ++e) sums[t][e] = fmaf(part[t][e], scales[t][e % 2], sums[t][e]);
}

// A row's result: a finished sum, or those of a gate and of an up matrix. The column is within out_width.
template <bool PAIR>
__device__ __forceinline__ void put_result(const Product& p, u32 expert, u32 row, u32 column, float sum, float up) {
    u64 at = u64(row) * p.out_width + column;
    bool is = column < p.n;
    auto bias = [&p, expert, column](u32 matrix) {
        return reinterpret_cast<const float*>(p.biases[matrix * p.experts + expert])[column];
    };
    if (p.biases && is) {
        sum += bias(0);
        if constexpr (PAIR) up += bias(1);
    }
    if constexpr (PAIR) {
        float x = p.clamped ? ClampedSwiglu{p.alpha, p.limit}(sum, up) : SiluMul()(sum, up);
        static_cast<bf16*>(p.out)[at] = narrow(is ? x : 0.0f);
    } else {
        static_cast<float*>(p.out)[at] = is ? sum : 0.0f;
    }
}
