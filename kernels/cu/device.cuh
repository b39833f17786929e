// What kernels use of the device beyond plain C++: every line above these wrappers is the same where a GPU runs it and
// where emulated/device.h stands in for one. Needs no CUDA header: NVRTC alone compiles it.
#pragma once

typedef signed char i8;
typedef unsigned char u8;
typedef unsigned short u16;
typedef unsigned int u32;
typedef unsigned long long u64;

// The upper half of an f32. A type of its own, so that no bits are taken for a number.
struct bf16 {
    u16 bits;
};

// Eight bf16, or sixteen bytes of anything: what one thread moves at once.
struct alignas(16) Wide {
    u32 words[4];
};

struct alignas(8) Pair {
    u32 words[2];
};

struct alignas(16) Four {
    float values[4];
};

constexpr u32 WARP = 32;
constexpr float LOG2_E = 1.4426950408889634f;

#ifdef COTERIE_EMULATED
#include "emulated/device.h"
#else

// A kernel takes one struct. Nobody passes another number of threads than it is made for.
#define KERNEL(name, threads, Params) \
    extern "C" __global__ void __launch_bounds__(threads) name(const __grid_constant__ Params p)

extern __shared__ __align__(128) u8 dynamic_shared_memory[];

// The block's shared memory, of which the launch says the size.
template <class Shared>
__device__ __forceinline__ Shared& shared() {
    return *reinterpret_cast<Shared*>(dynamic_shared_memory);
}
// The same as so many bytes.
__device__ __forceinline__ u8* shared_bytes(u32) { return dynamic_shared_memory; }

__device__ __forceinline__ void block_sync() { __syncthreads(); }
__device__ __forceinline__ void warp_sync() { __syncwarp(); }

// All 32 lanes take part in what follows.
template <class T>
__device__ __forceinline__ T shuffle_xor(T x, u32 mask) {
    return __shfl_xor_sync(~0u, x, mask);
}
template <class T>
__device__ __forceinline__ T shuffle(T x, u32 lane) {
    return __shfl_sync(~0u, x, lane);
}
__device__ __forceinline__ u32 ballot(bool x) { return __ballot_sync(~0u, x); }

__device__ __forceinline__ u32 count_bits(u32 x) { return __popc(x); }
__device__ __forceinline__ u32 leading_zeros(u32 x) { return __clz(x); }
// The lowest bit that is set; there is one.
__device__ __forceinline__ u32 first_bit(u32 x) { return __ffs(x) - 1; }

// 2^x, to two units in the last place.
__device__ __forceinline__ float exp2_fast(float x) {
    float y;
    asm("ex2.approx.f32 %0, %1;" : "=f"(y) : "f"(x));
    return y;
}

// Both rounded to the nearest, `low` in the lower half.
__device__ __forceinline__ u32 pack_bf16(float low, float high) {
    u32 both;
    asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(both) : "f"(high), "f"(low));
    return both;
}

// a · b + c of both halves, each rounded once.
__device__ __forceinline__ u32 fma_bf16x2(u32 a, u32 b, u32 c) {
    u32 d;
    asm("fma.rn.bf16x2 %0, %1, %2, %3;" : "=r"(d) : "r"(a), "r"(b), "r"(c));
    return d;
}

// Four of the bytes of `a` (0 to 3) and `b` (4 to 7), as the digits of `selector` say.
__device__ __forceinline__ u32 permute_bytes(u32 a, u32 b, u32 selector) { return __byte_perm(a, b, selector); }

__device__ __forceinline__ float float_of_bits(u32 bits) { return __uint_as_float(bits); }
__device__ __forceinline__ u32 bits_of_float(float x) { return __float_as_uint(x); }

template <class T>
__device__ __forceinline__ void atomic_add(T* to, T x) {
    atomicAdd(to, x);
}

template <class T>
__device__ __forceinline__ T load(const void* from) {
    return *reinterpret_cast<const T*>(from);
}
template <class T>
__device__ __forceinline__ void store(void* to, T x) {
    *reinterpret_cast<T*>(to) = x;
}

// 16 bytes from global to shared memory past the registers; zeros if `valid` is false. They are there after a
// `copies_wait` that covers their commit, for other threads after a `block_sync` behind it.
__device__ __forceinline__ void copy_async(void* shared, const void* global, bool valid) {
    u32 to = static_cast<u32>(__cvta_generic_to_shared(shared));
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(to), "l"(global), "r"(valid ? 16 : 0) : "memory");
}
__device__ __forceinline__ void copies_commit() { asm volatile("cp.async.commit_group;" ::: "memory"); }
// Waits until at most `Pending` of the thread's last commits are under way.
template <int Pending>
__device__ __forceinline__ void copies_wait() {
    asm volatile("cp.async.wait_group %0;" ::"n"(Pending) : "memory");
}

// d += a · b: a is 16 × 16, b is 16 × 8, d is 16 × 8 of f32. With g = lane / 4 and c = lane % 4 a lane holds, low half first,
// a[0] = A[g][2c, 2c+1], a[1] = A[g+8][2c, 2c+1], a[2] = A[g][2c+8, 2c+9], a[3] = A[g+8][2c+8, 2c+9],
// b[0] = B[2c, 2c+1][g], b[1] = B[2c+8, 2c+9][g], d[0], d[1] = D[g][2c, 2c+1], d[2], d[3] = D[g+8][2c, 2c+1].
__device__ __forceinline__ void mma_bf16(float (&d)[4], const u32 (&a)[4], const u32 (&b)[2]) {
    asm("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"
        : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
}

// Four 8 × 8 matrices of 16-bit values from shared memory, each transposed: lane i names row i % 8 of matrix i / 8, and of
// matrix j gets elements [2c, 2c+1][g] in r[j].
__device__ __forceinline__ void load_transposed(u32 (&r)[4], const void* row) {
    u32 from = static_cast<u32>(__cvta_generic_to_shared(row));
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0, %1, %2, %3}, [%4];"
                 : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
                 : "r"(from)
                 : "memory");
}

#endif

// Whether lanes that read shared memory at once, `bytes` each, do so without waiting for each other: a phase of 128 bytes must
// touch each of the 32 banks once. `place` gives a lane's byte.
template <class Place>
__device__ constexpr bool no_bank_twice(u32 bytes, Place place) {
    u32 lanes = 128 / bytes;
    for (u32 first = 0; first < WARP; first += lanes) {
        u32 touched = 0;
        for (u32 lane = first; lane < first + lanes; ++lane) {
            for (u32 word = 0; word < bytes / 4; ++word) {
                u32 bank = 1u << ((place(lane) / 4 + word) % 32);
                if (touched & bank) return false;
                touched |= bank;
            }
        }
    }
    return true;
}

// Of every architecture that kernels are compiled for the least that a block may have.
constexpr u32 MOST_SHARED = 99 * 1024;

__device__ __forceinline__ float infinity() { return float_of_bits(0x7f800000); }

__device__ __forceinline__ u32 divide_up(u32 a, u32 b) { return (a + b - 1) / b; }

__device__ __forceinline__ float widen(bf16 x) { return float_of_bits(u32(x.bits) << 16); }
__device__ __forceinline__ float widen(float x) { return x; }
__device__ __forceinline__ bf16 narrow(float x) { return bf16{u16(pack_bf16(x, 0.0f))}; }

// Four neighbours of a row, zeros behind its end. Only rows of whole fours are sure to be aligned.
__device__ __forceinline__ Four four_of(const float* row, u32 at, u32 width) {
    if (width % 4 == 0) return load<Four>(row + at);
    Four four;
#pragma unroll
    for (u32 j = 0; j < 4; ++j) four.values[j] = at + j < width ? row[at + j] : 0.0f;
    return four;
}

// The sum over a warp's lanes, the same in each.
__device__ __forceinline__ float warp_sum(float x) {
#pragma unroll
    for (u32 mask = WARP / 2; mask > 0; mask /= 2) x += shuffle_xor(x, mask);
    return x;
}

__device__ __forceinline__ float warp_max(float x) {
#pragma unroll
    for (u32 mask = WARP / 2; mask > 0; mask /= 2) x = fmaxf(x, shuffle_xor(x, mask));
    return x;
}

__device__ __forceinline__ float sigmoid(float x) { return 1.0f / (1.0f + expf(-x)); }

// Values to an output of either width.
__device__ __forceinline__ void put(float* out, float x) { *out = x; }
__device__ __forceinline__ void put(bf16* out, float x) { *out = narrow(x); }
__device__ __forceinline__ void put4(float* out, const Four& x) { store(out, x); }
__device__ __forceinline__ void put4(bf16* out, const Four& x) {
    store(out, Pair{{pack_bf16(x.values[0], x.values[1]), pack_bf16(x.values[2], x.values[3])}});
}
