// Rows brought elsewhere: lookups, tokens to their experts, and experts' outputs back to tokens.
#include "device.cuh"

constexpr u32 THREADS = 256;

struct Gather {
    const void* x;    // rows of `stride` values, of the kernel's type
    const u32* rows;  // [count]
    float* out;       // [count, width]
    u32 stride, width;
};

template <class In>
__device__ __forceinline__ void gather(const Gather& p) {
    const In* x = static_cast<const In*>(p.x) + u64(p.rows[blockIdx.x]) * p.stride;
    float* out = p.out + u64(blockIdx.x) * p.width;
    for (u32 i = blockIdx.y * THREADS + threadIdx.x; i < p.width; i += gridDim.y * THREADS) out[i] = widen(x[i]);
}

KERNEL(gather_f32, THREADS, Gather) { gather<float>(p); }
// The rows of an embedding that tokens name.
KERNEL(gather_bf16, THREADS, Gather) { gather<bf16>(p); }

struct Narrow {
    const float* x;     // [rows, width]
    bf16* out;          // [rows, padded]
    u32 width, padded;  // padded is a multiple of 4
};

// As the products read their rows: rounded, with zeros behind their ends.
KERNEL(narrow_rows, THREADS, Narrow) {
    const float* x = p.x + u64(blockIdx.x) * p.width;
    bf16* out = p.out + u64(blockIdx.x) * p.padded;
    for (u32 at = 4 * (blockIdx.y * THREADS + threadIdx.x); at < p.padded; at += 4 * gridDim.y * THREADS)
        put4(out + at, at < p.width ? four_of(x, at, p.width) : Four{{0.0f, 0.0f, 0.0f, 0.0f}});
}

struct Biases {
    float* x;           // [rows, width]
    const u64* biases;  // [rows] addresses of [width]
    u32 width;
};

// A bias of its own to each row.
KERNEL(add_biases, THREADS, Biases) {
    const float* bias = reinterpret_cast<const float*>(p.biases[blockIdx.x]);
    float* x = p.x + u64(blockIdx.x) * p.width;
    for (u32 i = blockIdx.y * THREADS + threadIdx.x; i < p.width; i += gridDim.y * THREADS) x[i] += bias[i];
}

struct Fill {
    float* x;          // [rows, width]
    u32 width, first;  // columns from `first` on
    float value;
};

KERNEL(fill_columns, THREADS, Fill) {
    float* x = p.x + u64(blockIdx.x) * p.width;
    for (u32 i = p.first + blockIdx.y * THREADS + threadIdx.x; i < p.width; i += gridDim.y * THREADS) x[i] = p.value;
}

struct Combine {
    const float* x;        // [choices, width]: experts' outputs
    const u32* places;     // [tokens, per_token]: the row of x for each choice
    const float* weights;  // [tokens, per_token]
    float* out;            // [tokens, width]
    u32 per_token, width;
};

// out[t] = Σ_j weights[t, j] · x[places[t, j]], j ascending.
KERNEL(combine, THREADS, Combine) {
    u64 token = blockIdx.x;
    for (u32 i = blockIdx.y * THREADS + threadIdx.x; i < p.width; i += gridDim.y * THREADS) {
        float sum = 0.0f;
        for (u32 j = 0; j < p.per_token; ++j) {
            u64 choice = token * p.per_token + j;
            sum = fmaf(p.weights[choice], p.x[u64(p.places[choice]) * p.width + i], sum);
        }
        p.out[token * p.width + i] = sum;
    }
}

struct Dispatch {
    const u32* ids;  // [choices]: each choice's expert
    u32* offsets;    // [experts + 1]: where an expert's rows begin
    u32* order;      // [choices]: the token that a row is of
    u32* places;     // [choices]: the row of a choice
    u32 choices, per_token, experts;
};

// A warp has one expert: how many choices are of experts before it, and then which are its own, in their order. Nothing is
// exchanged between warps, and nothing depends on which of them is first.
KERNEL(dispatch, THREADS, Dispatch) {
    u32 expert = blockIdx.x * (THREADS / WARP) + threadIdx.x / WARP, lane = threadIdx.x % WARP;
    if (expert >= p.experts) return;
    u32 before = 0, own = 0;
    for (u32 base = 0; base < p.choices; base += WARP) {
        u32 id = base + lane < p.choices ? p.ids[base + lane] : p.experts;
        before += count_bits(ballot(id < expert));
        own += count_bits(ballot(id == expert));
    }
    if (lane == 0) {
        p.offsets[expert] = before;
        if (expert + 1 == p.experts) p.offsets[p.experts] = before + own;
    }
    if (own == 0) return;
    u32 row = before;
    for (u32 base = 0; base < p.choices; base += WARP) {
        u32 choice = base + lane;
        bool mine = choice < p.choices && p.ids[choice] == expert;
        u32 all = ballot(mine);
        if (mine) {
            u32 place = row + count_bits(all & ((1u << lane) - 1));
            p.order[place] = choice / p.per_token;
            p.places[choice] = place;
        }
        row += count_bits(all);
    }
}
