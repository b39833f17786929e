// Keys and values to their places in a paged cache, rounded to bf16. A slot is block · block_size + offset, or NO_SLOT for a row
// of which nothing is kept.
#include "device.cuh"

constexpr u32 THREADS = 128;
constexpr u32 NO_SLOT = 0xffffffff;

struct Store {
    const float* k;    // [rows, kv_heads, head_dim]
    const float* v;    // the same
    bf16* keys;        // [block, kv_heads, block_size, head_dim]
    bf16* values;      // the same
    const u32* slots;  // [rows]
    u32 kv_heads, head_dim, block_size;
};

KERNEL(store_keys_and_values, THREADS, Store) {
    u32 slot = p.slots[blockIdx.x], width = p.kv_heads * p.head_dim;
    if (slot == NO_SLOT) return;
    for (u32 i = threadIdx.x; i < width; i += THREADS) {
        u32 head = i / p.head_dim;
        u64 token = (u64(slot / p.block_size) * p.kv_heads + head) * p.block_size + slot % p.block_size;
        u64 from = u64(blockIdx.x) * width + i, to = token * p.head_dim + i % p.head_dim;
        p.keys[to] = narrow(p.k[from]);
        p.values[to] = narrow(p.v[from]);
    }
}

struct StoreLatents {
    const float* latents;  // [rows, latent]
    const float* ropes;    // [rows, rope]
    bf16* cache;           // [slot, latent + rope]
    const u32* slots;      // [rows]
    u32 latent, rope;
};

KERNEL(store_latents, THREADS, StoreLatents) {
    u64 row = blockIdx.x, to = u64(p.slots[row]) * (p.latent + p.rope);
    if (p.slots[row] == NO_SLOT) return;
    for (u32 i = threadIdx.x; i < p.latent + p.rope; i += THREADS) {
        float x = i < p.latent ? p.latents[row * p.latent + i] : p.ropes[row * p.rope + i - p.latent];
        p.cache[to + i] = narrow(x);
    }
}
