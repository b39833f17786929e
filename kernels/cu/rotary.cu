// Rotary embedding in place: a thread turns one pair. Cosines and sines come from a table that has the form of the embedding
// (YaRN, scaled or partial) already in it.
#include "device.cuh"

struct Rotary {
    float* x;              // [rows, heads, head_dim]
    const float* cosines;  // [positions, half]
    const float* sines;    // [positions, half]
    const u32* positions;  // [rows]
    u32 rows, heads, head_dim, half;
};

constexpr u32 THREADS = 128;

template <bool INTERLEAVED>
__device__ __forceinline__ void turn(const Rotary& p) {
    u32 pair = blockIdx.x * THREADS + threadIdx.x;
    if (pair >= p.heads * p.half) return;
    u32 head = pair / p.half, i = pair % p.half;
    for (u32 row = blockIdx.y; row < p.rows; row += gridDim.y) {
        u64 angle = u64(p.positions[row]) * p.half + i;
        float cosine = p.cosines[angle], sine = p.sines[angle];
        float* x = p.x + (u64(row) * p.heads + head) * p.head_dim;
        float* low = x + (INTERLEAVED ? 2 * i : i);
        float* high = INTERLEAVED ? low + 1 : low + p.half;
        float a = *low, b = *high;
        *low = a * cosine - b * sine;
        *high = b * cosine + a * sine;
    }
}

KERNEL(rotary_half_split, THREADS, Rotary) { turn<false>(p); }
KERNEL(rotary_interleaved, THREADS, Rotary) { turn<true>(p); }
