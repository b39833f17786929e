// Ops on one element at a time; a thread has four neighbours.
#include "activation.cuh"
#include "device.cuh"

struct Elements {
    const float* a;  // [count]
    const float* b;  // what the op says
    void* out;       // [count], may be a
    u64 count;
    u32 width;  // of a row, where rows count
    float alpha, beta;  // of a clamped SwiGLU the alpha and the limit
};

constexpr u32 THREADS = 256;

// What op number i of `a` meets: element i of `b`, column i's, or row i's.
struct Same {
    static __device__ __forceinline__ float of(const Elements& p, u64 i) { return p.b[i]; }
};
struct Column {
    static __device__ __forceinline__ float of(const Elements& p, u64 i) { return p.b[i % p.width]; }
};
struct Row {
    static __device__ __forceinline__ float of(const Elements& p, u64 i) { return p.b[i / p.width]; }
};
struct Nothing {
    static __device__ __forceinline__ float of(const Elements&, u64) { return 0.0f; }
};

template <class Other, class Out, class Op>
__device__ __forceinline__ void each(const Elements& p, Op op) {
    u64 first = 4 * (u64(blockIdx.x) * THREADS + threadIdx.x);
    Out* out = static_cast<Out*>(p.out);
    if (first + 4 <= p.count) {
        Four x = load<Four>(p.a + first);
#pragma unroll
        for (u32 j = 0; j < 4; ++j) x.values[j] = op(x.values[j], Other::of(p, first + j));
        put4(out + first, x);
        return;
    }
    for (u64 i = first; i < p.count; ++i) put(out + i, op(p.a[i], Other::of(p, i)));
}

KERNEL(silu_mul_f32, THREADS, Elements) { each<Same, float>(p, SiluMul()); }
KERNEL(silu_mul_bf16, THREADS, Elements) { each<Same, bf16>(p, SiluMul()); }
KERNEL(clamped_swiglu_f32, THREADS, Elements) { each<Same, float>(p, ClampedSwiglu{p.alpha, p.beta}); }
KERNEL(clamped_swiglu_bf16, THREADS, Elements) { each<Same, bf16>(p, ClampedSwiglu{p.alpha, p.beta}); }

KERNEL(silu, THREADS, Elements) {
    each<Nothing, float>(p, [](float x, float) { return x * sigmoid(x); });
}
KERNEL(sigmoid_mul, THREADS, Elements) {
    each<Same, float>(p, [](float x, float gate) { return x * sigmoid(gate); });
}
KERNEL(add, THREADS, Elements) {
    each<Same, float>(p, [](float x, float y) { return x + y; });
}
KERNEL(blend, THREADS, Elements) {
    float alpha = p.alpha, beta = p.beta;
    each<Same, float>(p, [alpha, beta](float x, float y) { return alpha * x + beta * y; });
}
KERNEL(add_to_rows, THREADS, Elements) {
    each<Column, float>(p, [](float x, float bias) { return x + bias; });
}
KERNEL(gate_rows, THREADS, Elements) {
    each<Row, float>(p, [](float x, float gate) { return x * sigmoid(gate); });
}
