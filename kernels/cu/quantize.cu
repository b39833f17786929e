// Weights on their way to the formats that products read: rows of bf16 to whole numbers with an f32 scale a group, exactly as
// cpu/quant.rs and cpu/int4.rs say. A thread has eight neighbours, the lanes of a group agree on its scale by shuffles.
#include "device.cuh"

struct Quantize {
    const bf16* x;      // [rows, k], its beginning aligned to 16 bytes
    u8* values;         // [rows, padded] codes
    float* scales;      // [rows, ceil(k / group)]
    u32 rows, k, padded;  // padded is k up to the next multiple of 32; zeros go behind k
};

constexpr u32 THREADS = 256;
constexpr u32 EACH = 8;
// A group whose largest magnitude is below this counts as zeros.
constexpr float TINY = 1e-30f;

// Eight values of a row, zeros behind its end. Only rows of whole eights are sure to be aligned.
__device__ __forceinline__ void eight_of(const Quantize& p, u32 row, u32 at, float (&x)[EACH]) {
    const bf16* from = p.x + u64(row) * p.k;
    if (p.k % EACH == 0) {
        Wide eight = at < p.k ? load<Wide>(from + at) : Wide{{0, 0, 0, 0}};
#pragma unroll
        for (u32 j = 0; j < EACH; ++j)
            x[j] = float_of_bits(j % 2 ? eight.words[j / 2] & 0xffff0000 : eight.words[j / 2] << 16);
        return;
    }
#pragma unroll
    for (u32 j = 0; j < EACH; ++j) x[j] = at + j < p.k ? widen(from[at + j]) : 0.0f;
}

// To the nearest, ties to even; 0 for NaN, as in Rust.
__device__ __forceinline__ int whole(float x) { return x == x ? int(rintf(x)) : 0; }

// Of the values of a group: the largest, the largest of what is below zero with its sign turned, and whether one is infinite or NaN.
template <u32 LANES>
struct Extent {
    float up = 0.0f, down = 0.0f;
    u32 broken = 0;

    __device__ __forceinline__ explicit Extent(const float (&x)[EACH]) {
#pragma unroll
        for (u32 j = 0; j < EACH; ++j) {
            // The greater one of a NaN and a number is the number.
            up = fmaxf(up, x[j]);
            down = fmaxf(down, -x[j]);
            broken |= (bits_of_float(x[j]) & 0x7f800000) == 0x7f800000;
        }
#pragma unroll
        for (u32 mask = LANES / 2; mask > 0; mask /= 2) {
            up = fmaxf(up, shuffle_xor(up, mask));
            down = fmaxf(down, shuffle_xor(down, mask));
            broken |= shuffle_xor(broken, mask);
        }
    }
    __device__ __forceinline__ float largest() const { return fmaxf(up, down); }
};

// Within ±127: the largest magnitude is 127.
struct Bytes {
    static constexpr u32 GROUP = 64;
    static __device__ __forceinline__ float scale(float up, float down) { return fmaxf(up, down) / 127.0f; }
    static __device__ __forceinline__ float inverse(float up, float down) { return 127.0f / fmaxf(up, down); }
    static __device__ __forceinline__ void write(u8* values, u64 at, const float (&x)[EACH], float inverse) {
        Pair codes = {{0, 0}};
#pragma unroll
        for (u32 j = 0; j < EACH; ++j) codes.words[j / 4] |= u32(whole(x[j] * inverse) & 0xff) << (8 * (j % 4));
        store(values + at, codes);
    }
};

// From -8 to 7, kept as 0 to 15: the value of the largest magnitude is -8, whichever sign it has.
struct Nibbles {
    static constexpr u32 GROUP = 32;
    static __device__ __forceinline__ float scale(float up, float down) { return down >= up ? down / 8.0f : -(up / 8.0f); }
    static __device__ __forceinline__ float inverse(float up, float down) { return down >= up ? 8.0f / down : -(8.0f / up); }
    static __device__ __forceinline__ void write(u8* values, u64 at, const float (&x)[EACH], float inverse) {
        u32 codes = 0;
#pragma unroll
        for (u32 j = 0; j < EACH; ++j) {
            int code = whole(x[j] * inverse) + 8;
            codes |= u32(code < 0 ? 0 : code > 15 ? 15 : code) << (4 * j);
        }
        store(values + at / 2, codes);
    }
};

template <class To>
__device__ __forceinline__ void quantize(const Quantize& p) {
    constexpr u32 LANES = To::GROUP / EACH;
    u32 groups = divide_up(p.k, To::GROUP), of_row = groups * LANES;
    u64 number = u64(blockIdx.x) * THREADS + threadIdx.x;
    // Lanes behind the end stay, as all 32 take part in a shuffle.
    bool valid = number < u64(p.rows) * of_row;
    u32 row = valid ? u32(number / of_row) : 0, at = EACH * (valid ? u32(number % of_row) : 0);
    float x[EACH];
    eight_of(p, row, at, x);
    Extent<LANES> extent(x);
    bool zeros = extent.largest() < TINY;
    float inverse = zeros ? 0.0f : To::inverse(extent.up, extent.down);
    if (valid && at < p.padded) To::write(p.values, u64(row) * p.padded + at, x, inverse);
    if (valid && threadIdx.x % LANES == 0)
        p.scales[u64(row) * groups + at / To::GROUP] =
            extent.broken ? float_of_bits(0x7fc00000) : zeros ? 0.0f : To::scale(extent.up, extent.down);
}

KERNEL(quantize_int8, THREADS, Quantize) { quantize<Bytes>(p); }
KERNEL(quantize_int4, THREADS, Quantize) { quantize<Nibbles>(p); }
