// What kernels for Hopper use of the device beyond device.cuh: products of whole warpgroups (wgmma), whose operands lie in
// shared memory or, of the left one, in registers. Compiled for sm_90a only; emulated/wgmma.h stands in for it on a CPU.
//
// From the PTX ISA, "Asynchronous Warpgroup Level Matrix Multiply-Accumulate Instructions".
#pragma once
#include "device.cuh"

// Threads of a warpgroup: its first warp is a multiple of four.
constexpr u32 WARPGROUP = 128;

// A block of sm_90a has as much shared memory.
constexpr u32 MOST_SHARED_HOPPER = 227 * 1024;

// Rows of 128 bytes lie one behind the other, and of each eight the units of 16 bytes are exchanged: unit u of row r is at
// u ^ (r % 8). That is the layout of a 128-byte swizzle for operands whose rows run along k, if it begins at a multiple of 1024.
constexpr u32 SWIZZLED_ROW = 128, SWIZZLED_ALIGNMENT = 1024;
__device__ constexpr u32 swizzled(u32 row, u32 unit) { return row * SWIZZLED_ROW + 16 * (unit ^ row % 8); }

// The descriptor of such an operand at `address` of shared memory: from bit 32 on how far the next eight rows are, in units of
// 16 bytes, and in the two highest bits 1, the 128-byte swizzle. The offset from bit 16 on is not used by it, and the pattern's
// (from bit 49 on) is 0. Of a row of 64 values sixteen others begin 32 bytes further on.
__device__ __forceinline__ u64 operand_at(u32 address) {
    return u64(address >> 4 & 0x3fff) | u64(1) << 16 | u64(8 * SWIZZLED_ROW / 16) << 32 | u64(1) << 62;
}

#ifdef COTERIE_EMULATED
#include "emulated/wgmma.h"
#else

extern __shared__ __align__(1024) u8 dynamic_swizzled_memory[];

// The block's shared memory, of which the launch says the size; aligned as swizzled operands must be.
template <class Shared>
__device__ __forceinline__ Shared& swizzled_shared() {
    return *reinterpret_cast<Shared*>(dynamic_swizzled_memory);
}

__device__ __forceinline__ u32 shared_address(const void* at) { return static_cast<u32>(__cvta_generic_to_shared(at)); }

// Four bytes from global to shared memory, as `copy_async` does sixteen.
__device__ __forceinline__ void copy_async_word(void* shared, const void* global, bool valid) {
    asm volatile("cp.async.ca.shared.global [%0], [%1], 4, %2;" ::"r"(shared_address(shared)), "l"(global), "r"(valid ? 4 : 0)
                 : "memory");
}

// What the thread wrote to shared memory, copies that it waited for included, is seen by products that are started after the
// next barrier: these read by another way than threads do.
__device__ __forceinline__ void shared_for_products() { asm volatile("fence.proxy.async.shared::cta;" ::: "memory"); }

// Before the first product of a batch: registers that were written until here are seen by it.
__device__ __forceinline__ void products_begin() { asm volatile("wgmma.fence.sync.aligned;" ::: "memory"); }
// Products that were started since the last call are a batch.
__device__ __forceinline__ void products_commit() { asm volatile("wgmma.commit_group.sync.aligned;" ::: "memory"); }
// Waits until at most `Pending` of the last batches are under way. The sums and operands of those must not be touched.
template <int Pending>
__device__ __forceinline__ void products_wait() {
    asm volatile("wgmma.wait_group.sync.aligned %0;" ::"n"(Pending) : "memory");
}

// Registers have what was written to them before a batch begins, or what a batch that was waited for has left in them: the
// compiler does not move what is done with them to the other side.
template <u32 COUNT>
__device__ __forceinline__ void settle(float (&registers)[COUNT]) {
#pragma unroll
    for (u32 i = 0; i < COUNT; ++i) asm volatile("" : "+f"(registers[i])::"memory");
}
__device__ __forceinline__ void settle(u32 (&registers)[4]) {
#pragma unroll
    for (u32 i = 0; i < 4; ++i) asm volatile("" : "+r"(registers[i])::"memory");
}

// What was computed stays in its registers: the compiler does not compute it again where it is used.
__device__ __forceinline__ void keep(u32& x) { asm volatile("" : "+r"(x)); }
template <class T>
__device__ __forceinline__ void keep(const T*& x) {
    asm volatile("" : "+l"(x));
}

#define SUMS_8(i) \
    "+f"(d[i]), "+f"(d[i + 1]), "+f"(d[i + 2]), "+f"(d[i + 3]), "+f"(d[i + 4]), "+f"(d[i + 5]), "+f"(d[i + 6]), "+f"(d[i + 7])
#define SUMS_16(i) SUMS_8(i), SUMS_8(i + 8)
#define SUMS_32(i) SUMS_16(i), SUMS_16(i + 16)
#define SUMS_64(i) SUMS_32(i), SUMS_32(i + 32)
#define SUMS_96 SUMS_64(0), SUMS_32(64)
#define PLACES_0 "%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15"
#define PLACES_16 "%16, %17, %18, %19, %20, %21, %22, %23, %24, %25, %26, %27, %28, %29, %30, %31"
#define PLACES_32 "%32, %33, %34, %35, %36, %37, %38, %39, %40, %41, %42, %43, %44, %45, %46, %47"
#define PLACES_48 "%48, %49, %50, %51, %52, %53, %54, %55, %56, %57, %58, %59, %60, %61, %62, %63"
#define PLACES_64 "%64, %65, %66, %67, %68, %69, %70, %71, %72, %73, %74, %75, %76, %77, %78, %79"
#define PLACES_80 "%80, %81, %82, %83, %84, %85, %86, %87, %88, %89, %90, %91, %92, %93, %94, %95"
#define PLACES_TO_16 PLACES_0
#define PLACES_TO_32 PLACES_TO_16 ", " PLACES_16
#define PLACES_TO_64 PLACES_TO_32 ", " PLACES_32 ", " PLACES_48
#define PLACES_TO_96 PLACES_TO_64 ", " PLACES_64 ", " PLACES_80
#define MULTIPLY(n, sums, places, operands, of_b, of_add, transposed, ...)                                              \
    asm volatile("{\n.reg .pred add;\nsetp.ne.u32 add, " of_add ", 0;\nwgmma.mma_async.sync.aligned.m64n" #n          \
                 "k16.f32.bf16.bf16 {" places "}, " operands ", " of_b ", add, 1, 1, " transposed ";\n}\n"             \
                 : sums                                                                                                \
                 : __VA_ARGS__, "l"(b), "r"(u32(add)))

// d = a · bᵀ, or d + a · bᵀ with `add`: a is 64 × 16 of bf16, b is N × 16, d is 64 × N of f32. Warp w of the four has rows 16w to
// 16w + 15 of a and d; with g = lane / 4 and c = lane % 4, low half first, a[0] = A[16w+g][2c, 2c+1], a[1] = A[16w+g+8][2c, 2c+1],
// a[2] = A[16w+g][2c+8, 2c+9], a[3] = A[16w+g+8][2c+8, 2c+9], and d[4j], d[4j+1] = D[16w+g][8j+2c, 8j+2c+1], d[4j+2], d[4j+3] =
// D[16w+g+8][8j+2c, 8j+2c+1]. N is twice the length of d. Operands in shared memory are given by their descriptors.
__device__ __forceinline__ void multiply(float (&d)[16], u64 a, u64 b, bool add) {
    MULTIPLY(32, SUMS_16(0), PLACES_TO_16, "%16", "%17", "%18", "0, 0", "l"(a));
}
__device__ __forceinline__ void multiply(float (&d)[32], u64 a, u64 b, bool add) {
    MULTIPLY(64, SUMS_32(0), PLACES_TO_32, "%32", "%33", "%34", "0, 0", "l"(a));
}
__device__ __forceinline__ void multiply(float (&d)[64], u64 a, u64 b, bool add) {
    MULTIPLY(128, SUMS_64(0), PLACES_TO_64, "%64", "%65", "%66", "0, 0", "l"(a));
}
__device__ __forceinline__ void multiply(float (&d)[96], u64 a, u64 b, bool add) {
    MULTIPLY(192, SUMS_96, PLACES_TO_96, "%96", "%97", "%98", "0, 0", "l"(a));
}
__device__ __forceinline__ void multiply(float (&d)[16], const u32 (&a)[4], u64 b, bool add) {
    MULTIPLY(32, SUMS_16(0), PLACES_TO_16, "{%16, %17, %18, %19}", "%20", "%21", "0", "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]));
}
__device__ __forceinline__ void multiply(float (&d)[32], const u32 (&a)[4], u64 b, bool add) {
    MULTIPLY(64, SUMS_32(0), PLACES_TO_32, "{%32, %33, %34, %35}", "%36", "%37", "0", "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]));
}
__device__ __forceinline__ void multiply(float (&d)[64], const u32 (&a)[4], u64 b, bool add) {
    MULTIPLY(128, SUMS_64(0), PLACES_TO_64, "{%64, %65, %66, %67}", "%68", "%69", "0", "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]));
}

#endif
