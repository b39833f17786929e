// Lightning attention: a block has one head of one sequence, and goes through its rows in blocks of 16 tokens, counted from
// the sequence's beginning. What is kept, and when a tail is folded into the sums, is as on the CPU
// (src/cpu/lightning.rs), so that a row has the same bits however the tokens before it came in.
#include "device.cuh"

// The rows of one sequence.
struct Sequence {
    u32 first_row, rows;
    u32 position;  // of the first row
    u32 slot;      // NO_SLOT if its state is zero, and is not kept
    u32 origin;  // 0: its state is zero; 1: it is in the slot; s + 2: it is snapshot s
    u32 first_save, saves;
};

// A snapshot to make: the tokens that it contains, a multiple of 16, and its number.
struct Save {
    u32 tokens, snapshot;
};

struct Lightning {
    const float* qkv;            // [rows, heads, 3, head_dim]
    float* out;                  // [rows, heads, head_dim]
    float* sums;                 // [slots, heads, head_dim, head_dim]
    float* tails;                // [slots, heads] of keys [head_dim, 16] and values [16, head_dim]
    float* snapshots;            // [snapshots, heads, head_dim, head_dim]
    const float* decays;         // [heads, 17]: e^(-slope · i)
    const Sequence* sequences;   // none begins from what another one of the launch saves, or saves what it begins from
    const Save* saves;           // of a sequence in order
    u32 heads, head_dim;         // head_dim is a multiple of 4, at most 128
};

constexpr u32 NO_SLOT = 0xffffffff;
constexpr u32 BLOCK = 16;
constexpr u32 MOST = 128;
constexpr u32 GROUPS = 4;
constexpr u32 THREADS = MOST * GROUPS;

struct Shared {
    float sums[MOST * MOST];
    float keys[MOST * BLOCK];
    float values[BLOCK * MOST];
    float q[BLOCK * MOST];
    float scores[BLOCK * BLOCK];
};

// Writes the sums with a full tail folded in to `to`, which may be the sums.
__device__ __forceinline__ void fold(const Shared& s, float* to, const float* decay, u32 d) {
    u32 column = threadIdx.x % MOST, group = threadIdx.x / MOST;
    if (column < d) {
        float values[BLOCK];
#pragma unroll
        for (u32 j = 0; j < BLOCK; ++j) values[j] = s.values[j * d + column] * decay[BLOCK - 1 - j];
        for (u32 row = group; row < d; row += GROUPS) {
            float sum = s.sums[row * d + column] * decay[BLOCK];
#pragma unroll
            for (u32 j = 0; j < BLOCK; j += 4) {
                Four keys = load<Four>(s.keys + row * BLOCK + j);
#pragma unroll
                for (u32 i = 0; i < 4; ++i) sum = fmaf(keys.values[i], values[j + i], sum);
            }
            to[row * d + column] = sum;
        }
    }
    block_sync();
}

// The rows first.. of the call, whose q, k and v are in shared memory at offset.. of their block.
__device__ __forceinline__ void attend(const Lightning& p, Shared& s, const float* decay, u64 first, u32 offset, u32 count) {
    u32 d = p.head_dim, column = threadIdx.x % MOST, group = threadIdx.x / MOST;
    for (u32 at = threadIdx.x; at < BLOCK * BLOCK; at += THREADS) {
        u32 i = at / BLOCK, j = at % BLOCK;
        if (i < offset || i >= offset + count || j > i) continue;
        float product = 0.0f;
        for (u32 r = 0; r < d; ++r) product = fmaf(s.q[i * d + r], s.keys[r * BLOCK + j], product);
        s.scores[at] = product * decay[i - j];
    }
    block_sync();
    if (column < d) {
        // Tokens group · 4 to group · 4 + 3 of the block.
        float sums[4] = {0.0f, 0.0f, 0.0f, 0.0f};
        for (u32 r = 0; r < d; r += 4) {
            float state[4];
#pragma unroll
            for (u32 e = 0; e < 4; ++e) state[e] = s.sums[(r + e) * d + column];
#pragma unroll
            for (u32 i = 0; i < 4; ++i) {
                Four q = load<Four>(s.q + (group * 4 + i) * d + r);
#pragma unroll
                for (u32 e = 0; e < 4; ++e) sums[i] = fmaf(q.values[e], state[e], sums[i]);
            }
        }
#pragma unroll
        for (u32 i = 0; i < 4; ++i) {
            u32 token = group * 4 + i;
            if (token < offset || token >= offset + count) continue;
            float sum = sums[i] * decay[token + 1];
            for (u32 j = 0; j <= token; ++j) sum = fmaf(s.scores[token * BLOCK + j], s.values[j * d + column], sum);
            p.out[((first + token - offset) * p.heads + blockIdx.x) * d + column] = sum;
        }
    }
    block_sync();
}

KERNEL(lightning, THREADS, Lightning) {
    Shared& s = shared<Shared>();
    Sequence own = p.sequences[blockIdx.y];
    if (own.slot == NO_SLOT && own.rows == 0) return;
    u32 d = p.head_dim, head = blockIdx.x, matrix = d * d;
    const float* decay = p.decays + head * (BLOCK + 1);
    float* sums = p.sums + (u64(own.slot) * p.heads + head) * matrix;
    float* keys = p.tails + (u64(own.slot) * p.heads + head) * 2 * BLOCK * d;
    float* values = keys + BLOCK * d;
    const float* from = own.origin < 2 ? sums : p.snapshots + (u64(own.origin - 2) * p.heads + head) * matrix;
    for (u32 i = threadIdx.x; i < matrix; i += THREADS) s.sums[i] = own.origin == 0 ? 0.0f : from[i];
    for (u32 i = threadIdx.x; i < BLOCK * d; i += THREADS) {
        // What comes from elsewhere has no tail; what is not there yet meets only zeros.
        bool kept = own.origin == 1;
        s.keys[i] = kept ? keys[i] : 0.0f;
        s.values[i] = kept ? values[i] : 0.0f;
        s.q[i] = 0.0f;
    }
    block_sync();

    bool changed = own.origin != 1;
    u32 position = own.position, save = own.first_save;
    for (u32 row = 0; row < own.rows;) {
        u32 offset = position % BLOCK;
        if (offset == 0 && (position > own.position || own.origin == 1)) {
            fold(s, s.sums, decay, d);
            changed = true;
        }
        u32 count = BLOCK - offset < own.rows - row ? BLOCK - offset : own.rows - row;
        for (u32 i = threadIdx.x; i < count * d; i += THREADS) {
            u32 token = offset + i / d, r = i % d;
            const float* qkv = p.qkv + ((u64(own.first_row) + row + i / d) * p.heads + head) * 3 * d + r;
            float k = qkv[d], v = qkv[2 * d];
            s.q[token * d + r] = qkv[0];
            s.keys[r * BLOCK + token] = k;
            s.values[token * d + r] = v;
            if (own.slot != NO_SLOT) keys[r * BLOCK + token] = k, values[token * d + r] = v;
        }
        block_sync();
        attend(p, s, decay, u64(own.first_row) + row, offset, count);
        row += count;
        position += count;
        if (save < own.first_save + own.saves && p.saves[save].tokens == position) {
            fold(s, p.snapshots + (u64(p.saves[save].snapshot) * p.heads + head) * matrix, decay, d);
            ++save;
        }
    }
    if (!changed || own.slot == NO_SLOT) return;
    for (u32 i = threadIdx.x; i < matrix; i += THREADS) sums[i] = s.sums[i];
}
