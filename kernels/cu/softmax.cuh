// A row's softmax over chunks of keys, folded in their order by whoever has them.
#pragma once
#include "device.cuh"

// Keys of a tile, and tiles whose weights are folded into a row's total at once.
constexpr u32 KEYS = 32;
constexpr u32 TILES_OF_CHUNK = 8;

// The softmax of a row: e^(x - most) of what came so far, in powers of two.
struct Total {
    float most, sum;

    // Takes a chunk in; gives the factors of what was there and of what comes in.
    __device__ __forceinline__ void fold(float most_of_chunk, float sum_of_chunk, float& keep, float& take) {
        float both = fmaxf(most, most_of_chunk);
        float base = both == -infinity() ? 0.0f : both;
        keep = exp2_fast(most - base), take = exp2_fast(most_of_chunk - base);
        most = both;
        sum = fmaf(sum, keep, sum_of_chunk * take);
    }

    // The factor of the finished sums, after the head's sink has joined.
    __device__ __forceinline__ float finish(const float* sinks, u32 head) {
        float keep = 1.0f, take;
        if (sinks) fold(sinks[head] * LOG2_E, 1.0f, keep, take);
        return keep / sum;
    }
};
