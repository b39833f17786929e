// The device of device.cuh on a CPU. Threads of a block are fibers of one thread, so barriers, shuffles and matrix
// instructions are exact; what a GPU leaves undefined (a lane that does not come, memory that is not aligned, a copy
// that was not waited for) is an error or shows.
#pragma once

#include <cmath>
#include <cstring>

#include "fibers.h"

#define __device__
#define __forceinline__ inline
#define __restrict__

#define KERNEL(name, threads, Params)                                                                           \
    static void name##_thread(const Params& p);                                                                 \
    extern "C" const char* name(const void* params, size_t size, const u32* grid, u32 block, size_t memory,     \
                                bool backwards) {                                                               \
        if (size != sizeof(Params)) return "the kernel's parameters have another size";                         \
        if (block > (threads)) return "the kernel is not made for so many threads";                             \
        const Params& p = *static_cast<const Params*>(params);                                                  \
        return emulated::run_grid(grid, block, memory, backwards, [&p] { name##_thread(p); });                  \
    }                                                                                                           \
    static void name##_thread(const Params& p)

#define threadIdx (emulated::thread().index)
#define blockIdx (emulated::grid().block_index)
#define blockDim (emulated::grid().block_size)
#define gridDim (emulated::grid().size)

template <class Shared>
Shared& shared() {
    emulated::require(sizeof(Shared) <= emulated::grid().memory_size, "the launch gives too little shared memory");
    return *reinterpret_cast<Shared*>(emulated::grid().memory);
}
inline u8* shared_bytes(u32 bytes) {
    emulated::require(bytes <= emulated::grid().memory_size, "the launch gives too little shared memory");
    return emulated::grid().memory;
}

inline void block_sync() { emulated::block_sync(); }
inline void warp_sync() {
    emulated::meet("warp_sync", nullptr, [](void**) {});
}

template <class T>
T shuffle(T x, u32 lane) {
    struct Turn {
        T x, result;
        u32 lane;
    } turn{x, x, lane};
    emulated::meet("shuffle", &turn, [](void** turns) {
        for (u32 lane = 0; lane < WARP; ++lane) {
            Turn& turn = *static_cast<Turn*>(turns[lane]);
            turn.result = static_cast<Turn*>(turns[turn.lane % WARP])->x;
        }
    });
    return turn.result;
}
template <class T>
T shuffle_xor(T x, u32 mask) {
    return shuffle(x, (threadIdx.x % WARP) ^ mask);
}
inline u32 ballot(bool x) {
    struct Turn {
        bool x;
        u32 result;
    } turn{x, 0};
    emulated::meet("ballot", &turn, [](void** turns) {
        u32 bits = 0;
        for (u32 lane = 0; lane < WARP; ++lane) bits |= u32(static_cast<Turn*>(turns[lane])->x) << lane;
        for (u32 lane = 0; lane < WARP; ++lane) static_cast<Turn*>(turns[lane])->result = bits;
    });
    return turn.result;
}

inline u32 count_bits(u32 x) { return u32(__builtin_popcount(x)); }
inline u32 leading_zeros(u32 x) { return x ? u32(__builtin_clz(x)) : 32; }
inline u32 first_bit(u32 x) { return u32(__builtin_ctz(x)); }
inline float exp2_fast(float x) { return exp2f(x); }

inline float float_of_bits(u32 bits) {
    float x;
    memcpy(&x, &bits, sizeof x);
    return x;
}
inline u32 bits_of_float(float x) {
    u32 bits;
    memcpy(&bits, &x, sizeof bits);
    return bits;
}

namespace emulated {
// To the nearest, ties to even.
inline u16 bf16_bits(float x) {
    u32 bits = bits_of_float(x);
    if ((bits & 0x7fffffff) > 0x7f800000) return 0x7fff;
    return u16((bits + 0x7fff + (bits >> 16 & 1)) >> 16);
}
inline float low_half(u32 pair) { return float_of_bits(pair << 16); }
inline float high_half(u32 pair) { return float_of_bits(pair & 0xffff0000); }
}  // namespace emulated

inline u32 pack_bf16(float low, float high) {
    return u32(emulated::bf16_bits(high)) << 16 | emulated::bf16_bits(low);
}
inline u32 fma_bf16x2(u32 a, u32 b, u32 c) {
    using namespace emulated;
    // Products of bf16 are exact in f32; what kernels add to them leaves no second rounding.
    return pack_bf16(fmaf(low_half(a), low_half(b), low_half(c)), fmaf(high_half(a), high_half(b), high_half(c)));
}
inline u32 permute_bytes(u32 a, u32 b, u32 selector) {
    u64 bytes = u64(b) << 32 | a;
    u32 result = 0;
    for (u32 digit = 0; digit < 4; ++digit) {
        u32 place = selector >> (4 * digit) & 7;
        result |= u32(bytes >> (8 * place) & 0xff) << (8 * digit);
    }
    return result;
}

// Fibers are only paused where they wait.
template <class T>
void atomic_add(T* to, T x) {
    *to += x;
}

template <class T>
T load(const void* from) {
    emulated::require(reinterpret_cast<u64>(from) % sizeof(T) == 0, "a load is not aligned");
    T x;
    memcpy(&x, from, sizeof x);
    return x;
}
template <class T>
void store(void* to, T x) {
    emulated::require(reinterpret_cast<u64>(to) % sizeof(T) == 0, "a store is not aligned");
    memcpy(to, &x, sizeof x);
    emulated::written(to, sizeof x);
}

// Done only when it is waited for, as late as a GPU may.
inline void copy_async(void* shared, const void* global, bool valid) {
    emulated::require(reinterpret_cast<u64>(shared) % 16 == 0, "a copy's target is not aligned");
    emulated::require(!valid || reinterpret_cast<u64>(global) % 16 == 0, "a copy's source is not aligned");
    emulated::thread().copies.push_back({shared, valid ? global : nullptr, 16, emulated::thread().commits});
}
inline void copies_commit() { ++emulated::thread().commits; }
template <int Pending>
void copies_wait() {
    emulated::Thread& thread = emulated::thread();
    size_t kept = 0;
    for (const emulated::Copy& copy : thread.copies) {
        if (copy.commit + Pending >= thread.commits) {
            thread.copies[kept++] = copy;
            continue;
        }
        if (copy.from) memcpy(copy.to, copy.from, copy.bytes);
        else memset(copy.to, 0, copy.bytes);
        emulated::written(copy.to, copy.bytes);
    }
    thread.copies.resize(kept);
}

inline void mma_bf16(float (&d)[4], const u32 (&a)[4], const u32 (&b)[2]) {
    struct Turn {
        float* d;
        const u32 *a, *b;
    } turn{d, a, b};
    emulated::meet("mma_bf16", &turn, [](void** turns) {
        using namespace emulated;
        float left[16][16], right[8][16];
        for (u32 lane = 0; lane < WARP; ++lane) {
            const Turn& turn = *static_cast<Turn*>(turns[lane]);
            u32 g = lane / 4, k = 2 * (lane % 4);
            for (u32 i = 0; i < 4; ++i) {
                float* pair = &left[g + i % 2 * 8][k + i / 2 * 8];
                pair[0] = low_half(turn.a[i]), pair[1] = high_half(turn.a[i]);
            }
            for (u32 i = 0; i < 2; ++i) {
                float* pair = &right[g][k + i * 8];
                pair[0] = low_half(turn.b[i]), pair[1] = high_half(turn.b[i]);
            }
        }
        for (u32 lane = 0; lane < WARP; ++lane) {
            float* d = static_cast<Turn*>(turns[lane])->d;
            for (u32 i = 0; i < 4; ++i) {
                const float *row = left[lane / 4 + i / 2 * 8], *column = right[2 * (lane % 4) + i % 2];
                double sum = d[i];
                for (u32 k = 0; k < 16; ++k) sum += double(row[k]) * double(column[k]);
                d[i] = float(sum);
            }
        }
    });
}

inline void load_transposed(u32 (&r)[4], const void* row) {
    emulated::require(reinterpret_cast<u64>(row) % 16 == 0, "a matrix's row is not aligned");
    struct Turn {
        u32* r;
        const u16* row;
    } turn{r, static_cast<const u16*>(row)};
    emulated::meet("load_transposed", &turn, [](void** turns) {
        for (u32 lane = 0; lane < WARP; ++lane) {
            for (u32 matrix = 0; matrix < 4; ++matrix) {
                auto element = [&](u32 row) {
                    return u32(static_cast<Turn*>(turns[matrix * 8 + row])->row[lane / 4]);
                };
                u32 first = 2 * (lane % 4);
                static_cast<Turn*>(turns[lane])->r[matrix] = element(first) | element(first + 1) << 16;
            }
        }
    });
}
