// Weights of models that nobody has trained, for benchmarks: value i follows from the seed and i alone, as cpu/random.rs says.
#include "device.cuh"

struct Random {
    bf16* out;  // [count], aligned to 8 bytes
    u64 seed, first, count;  // value 0 of out is number `first`
    float scale;
};

constexpr u32 THREADS = 256;
constexpr u32 EACH = 4;

__device__ __forceinline__ float value(u64 seed, u64 number, float scale) {
    u64 z = seed + (number + 1) * 0x9e3779b97f4a7c15ull;
    z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9ull;
    z = (z ^ z >> 27) * 0x94d049bb133111ebull;
    z ^= z >> 31;
    // The upper 24 bits as a whole number from -2^23 to 2^23 - 1.
    return float(int(z >> 40) - 0x800000) * scale;
}

KERNEL(random_values, THREADS, Random) {
    u64 at = EACH * (u64(blockIdx.x) * THREADS + threadIdx.x);
    if (at >= p.count) return;
    Four x;
#pragma unroll
    for (u32 j = 0; j < EACH; ++j) x.values[j] = value(p.seed, p.first + at + j, p.scale);
    if (at + EACH <= p.count) {
        put4(p.out + at, x);
        return;
    }
    for (u64 j = 0; at + j < p.count; ++j) put(p.out + at + j, value(p.seed, p.first + at + j, p.scale));
}
