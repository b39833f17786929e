// Formats of weights: how eight neighbours along k, as they lie in memory, become four pairs of bf16 without rounding. What
// a group of them is to be multiplied with is applied to its sum.
#pragma once
#include "device.cuh"

// As they are.
struct Bf16 {
    static constexpr u32 BITS = 16;
    static constexpr bool SCALED = false;
    typedef float Scale;
    static __device__ __forceinline__ void unpack(const u8* at, u32 (&pairs)[4]) {
        Wide eight = load<Wide>(at);
#pragma unroll
        for (u32 i = 0; i < 4; ++i) pairs[i] = eight.words[i];
    }
};

// Whole numbers within ±128.
struct Int8 {
    static constexpr u32 BITS = 8;
    static constexpr bool SCALED = true;
    typedef float Scale;
    static __device__ __forceinline__ void unpack(const u8* at, u32 (&pairs)[4]) {
        Pair eight = load<Pair>(at);
#pragma unroll
        for (u32 i = 0; i < 4; ++i) {
            // Byte b + 128 in the last place of 2^23: the difference is exact, and its upper half is its bf16.
            u32 biased = eight.words[i / 2] ^ 0x80808080;
            u32 low = i % 2 * 2, high = low + 1;
            float a = float_of_bits(permute_bytes(biased, 0x4b000000, 0x7440 | low)) - 8388736.0f;
            float b = float_of_bits(permute_bytes(biased, 0x4b000000, 0x7440 | high)) - 8388736.0f;
            pairs[i] = permute_bytes(bits_of_float(a), bits_of_float(b), 0x7632);
        }
    }
};

// E4M3. The code for NaN counts as ±480: whoever loads weights refuses it.
struct Fp8 {
    static constexpr u32 BITS = 8;
    static constexpr bool SCALED = true;
    typedef float Scale;
    static __device__ __forceinline__ void unpack(const u8* at, u32 (&pairs)[4]) {
        Pair eight = load<Pair>(at);
#pragma unroll
        for (u32 i = 0; i < 4; ++i) {
            u32 halves = permute_bytes(eight.words[i / 2], 0, i % 2 ? 0x4342 : 0x4140);
            u32 small = (halves & 0x00800080) << 8 | (halves & 0x007f007f) << 4;
            // At the place of a bf16's exponent, the four bits count from 2^-127 and not from 2^-7.
            pairs[i] = fma_bf16x2(small, 0x7b807b80, 0x80008000);
        }
    }
};

// Nibbles i and i + 4 of eight, in the halves of t[i], as pairs of neighbours.
__device__ __forceinline__ void in_order(const u32 (&t)[4], u32 (&pairs)[4]) {
    pairs[0] = permute_bytes(t[0], t[1], 0x5410);
    pairs[1] = permute_bytes(t[2], t[3], 0x5410);
    pairs[2] = permute_bytes(t[0], t[1], 0x7632);
    pairs[3] = permute_bytes(t[2], t[3], 0x7632);
}

// Whole numbers from -8 to 7, kept as 0 to 15; the first of a byte's two in its lower half.
struct Int4 {
    static constexpr u32 BITS = 4;
    static constexpr bool SCALED = true;
    typedef float Scale;
    static __device__ __forceinline__ void unpack(const u8* at, u32 (&pairs)[4]) {
        u32 eight = load<u32>(at), t[4];
#pragma unroll
        // In the last place of 128, less 136.
        for (u32 i = 0; i < 4; ++i) t[i] = fma_bf16x2((eight >> (4 * i) & 0x000f000f) | 0x43004300, 0x3f803f80, 0xc308c308);
        in_order(t, pairs);
    }
};

// E2M1 of MXFP4, and of 32 an exponent; the first of a byte's two in its lower half.
struct Mxfp4 {
    static constexpr u32 BITS = 4;
    static constexpr bool SCALED = true;
    typedef u8 Scale;
    static __device__ __forceinline__ void unpack(const u8* at, u32 (&pairs)[4]) {
        u32 eight = load<u32>(at), t[4];
#pragma unroll
        for (u32 i = 0; i < 4; ++i) {
            u32 two = eight >> (4 * i);
            u32 small = (two & 0x00080008) << 12 | (two & 0x00070007) << 6;
            t[i] = fma_bf16x2(small, 0x7e807e80, 0x80008000);
        }
        in_order(t, pairs);
    }
};

__device__ __forceinline__ float factor_of(float scale) { return scale; }
// 2^(exponent - 127), and NaN for 255.
__device__ __forceinline__ float factor_of(u8 exponent) {
    return float_of_bits(exponent == 0 ? 0x00400000 : exponent == 255 ? 0x7fc00000 : u32(exponent) << 23);
}
