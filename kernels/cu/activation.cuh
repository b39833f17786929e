// What a feed-forward network makes of its two halves.
#pragma once
#include "device.cuh"

// silu(gate) · up.
struct SiluMul {
    __device__ __forceinline__ float operator()(float gate, float up) const { return gate * sigmoid(gate) * up; }
};

// The clamped SwiGLU of GPT-OSS. A NaN stays one.
struct ClampedSwiglu {
    float alpha, limit;
    __device__ __forceinline__ float operator()(float gate, float up) const {
        gate = gate > limit ? limit : gate;
        up = up > limit ? limit : up < -limit ? -limit : up;
        return (up + 1.0f) * (gate * sigmoid(alpha * gate));
    }
};
