// The gate: a warp chooses the experts of one token.
#include "device.cuh"

struct Gate {
    const float* logits;  // [rows, experts]
    const float* bias;    // null or [experts]
    u32* ids;             // [rows, per_token]
    float* weights;       // [rows, per_token]
    u32 rows, experts, per_token;
    u32 scores;            // 0: softmax, 1: sigmoid, 2: softmax of the chosen
    u32 groups, kept;      // groups is 0 if every expert may be used; at most 32
    u32 two_best;          // is a group worth its two best experts, or its best?
    u32 renormalise;
    float factor;
};

constexpr u32 WARPS = 4;
constexpr u32 MOST = 1024;

struct Row {
    float scores[MOST];
    // Ranks in an order of integers: 0 is taken, 1 is NaN.
    u32 ranks[MOST];
};

// Of two ranks the better has the larger number; -0 is 0.
__device__ __forceinline__ u32 rank_of(float x) {
    if (x != x) return 1;
    u32 bits = bits_of_float(x + 0.0f);
    return bits & 0x80000000 ? ~bits : bits | 0x80000000;
}
__device__ __forceinline__ float value_of(u32 rank) {
    return float_of_bits(rank & 0x80000000 ? rank & 0x7fffffff : ~rank);
}

__device__ __forceinline__ void score(const Gate& p, const float* logits, Row& row, u32 lane) {
    float most = -infinity();
    for (u32 e = lane; e < p.experts; e += WARP) most = fmaxf(most, logits[e]);
    most = warp_max(most);
    float sum = 0.0f;
    for (u32 e = lane; e < p.experts; e += WARP) {
        float x = logits[e];
        if (p.scores == 0) x = expf(x - most);
        if (p.scores == 1) x = sigmoid(x);
        sum += x;
        row.scores[e] = x;
    }
    sum = p.scores == 0 ? warp_sum(sum) : 1.0f;
    for (u32 e = lane; e < p.experts; e += WARP) {
        row.scores[e] /= sum;
        row.ranks[e] = rank_of(row.scores[e] + (p.bias ? p.bias[e] : 0.0f));
    }
    warp_sync();
}

// Lane g judges group g. Of groups that are worth the same, the first is kept.
__device__ __forceinline__ void leave_groups_out(const Gate& p, Row& row, u32 lane) {
    u32 size = p.experts / p.groups;
    float first = -infinity(), second = -infinity();
    if (lane < p.groups) {
        for (u32 e = lane * size; e < (lane + 1) * size; ++e) {
            float rank = value_of(row.ranks[e]);
            if (rank > first) {
                second = first;
                first = rank;
            } else if (rank > second) {
                second = rank;
            }
        }
    }
    float worth = p.two_best ? first + second : first;
    u32 better = 0;
    for (u32 g = 0; g < p.groups; ++g) {
        float other = shuffle(worth, g);
        better += other > worth || (other == worth && g < lane);
    }
    warp_sync();
    if (lane < p.groups && better >= p.kept) {
        for (u32 e = lane * size; e < (lane + 1) * size; ++e) row.ranks[e] = rank_of(-infinity());
    }
    warp_sync();
}

KERNEL(gate, WARPS * WARP, Gate) {
    u32 lane = threadIdx.x % WARP, token = blockIdx.x * WARPS + threadIdx.x / WARP;
    if (token >= p.rows) return;
    Row& row = shared<Row[WARPS]>()[threadIdx.x / WARP];
    score(p, p.logits + u64(token) * p.experts, row, lane);
    if (p.groups) leave_groups_out(p, row, lane);
    // Lane j keeps choice j.
    u32 id = 0;
    for (u32 j = 0; j < p.per_token; ++j) {
        u64 best = 0;
        for (u32 e = lane; e < p.experts; e += WARP) {
            u64 rank = row.ranks[e] ? u64(row.ranks[e]) << 32 | (0xffffffff - e) : 0;
            best = rank > best ? rank : best;
        }
#pragma unroll
        for (u32 mask = WARP / 2; mask > 0; mask /= 2) {
            u64 other = shuffle_xor(best, mask);
            best = other > best ? other : best;
        }
        u32 chosen = 0xffffffff - u32(best);
        if (lane == j) id = chosen;
        if (lane == 0) row.ranks[chosen] = 0;
        warp_sync();
    }
    bool has = lane < p.per_token;
    float weight = has ? row.scores[id] : 0.0f;
    if (p.scores == 2) {
        float most = warp_max(has ? weight : -infinity());
        weight = has ? expf(weight - most) : 0.0f;
        weight /= warp_sum(weight);
    }
    // Sigmoids may all be 0.
    if (p.renormalise) weight /= warp_sum(weight) + 1e-20f;
    if (has) {
        p.ids[u64(token) * p.per_token + lane] = id;
        p.weights[u64(token) * p.per_token + lane] = weight * p.factor;
    }
}
