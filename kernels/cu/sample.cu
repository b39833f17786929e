// From a row of logits to a token, by the rule of the engine's sampler on the CPU: weights e^((x - largest) / temperature), of
// which min_p, top_k and top_p leave a part, and a draw that is a function of a seed and an index. A block has a row.
//
// Weights are summed up as whole numbers of 2^-40, so sums do not depend on the order in which threads add, here or on the CPU.
// What is lighter has no weight. Exponentials are the CPU's, operation by operation: from the same logits, the draw is the same.
#include "device.cuh"

struct Rule {
    float temperature, top_p, min_p;
    u32 top_k;  // 0 is all
    u64 seed, index;
};

struct Sample {
    const float* logits;  // [rows, vocabulary]
    const Rule* rules;    // [rows]
    u32* tokens;          // [rows]: 2^32 - 1 if the largest logit is not a number
    u32 vocabulary;
};

constexpr u32 THREADS = 256;
constexpr u32 NO_TOKEN = 0xffffffff;

struct Shared {
    u64 masses[256];
    u32 counts[256];
    u64 of_warp[THREADS / WARP];
    u64 found[3];
};

// e^x to about 1 ulp, as `exp` in src/cpu/lanes.rs has it.
__device__ __forceinline__ float exponential(float x) {
    if (x != x) return x;
    x = x < -105.0f ? -105.0f : x > 89.0f ? 89.0f : x;
    // Rounds to a whole number, ties to even: only those are left so far from 0.
    float n = (x * LOG2_E + 12582912.0f) - 12582912.0f;
    n = n < -127.0f ? -127.0f : n;
    float r = fmaf(n, 2.1219444e-4f, fmaf(n, -0.6933594f, x));
    float p = 1.9875691e-4f;
    p = fmaf(p, r, 1.3981999e-3f);
    p = fmaf(p, r, 8.333452e-3f);
    p = fmaf(p, r, 4.1665796e-2f);
    p = fmaf(p, r, 0.16666666f);
    p = fmaf(p, r, 0.5f);
    p = fmaf(p, r * r, r) + 1.0f;
    return p * float_of_bits(u32(int(n) + 127) << 23);
}

// A row's weights as keys: of two, the heavier is larger; 0 cannot be drawn.
struct Weights {
    const float* logits;
    float most, temperature, min_p;

    __device__ __forceinline__ u32 key(u32 token) const {
        float weight = exponential((logits[token] - most) / temperature);
        return weight >= min_p && weight > 0.0f ? bits_of_float(weight) : 0;
    }
    static __device__ __forceinline__ u64 mass(u32 key) { return u64(float_of_bits(key) * 1099511627776.0f); }
};

// Where, from the heaviest token on, something is reached: the key, and what is before it.
struct Place {
    u32 key, count;
    u64 mass;
};

// The largest and its token, the lowest of equals; NaN is never it.
__device__ __forceinline__ u64 largest(u32 vocabulary, const float* logits, Shared& s) {
    u64 best = 0;
    for (u32 token = threadIdx.x; token < vocabulary; token += THREADS) {
        float x = logits[token] + 0.0f;
        if (x != x) continue;
        u32 bits = bits_of_float(x);
        u64 rank = u64(bits & 0x80000000 ? ~bits : bits | 0x80000000) << 32 | (NO_TOKEN - token);
        best = rank > best ? rank : best;
    }
#pragma unroll
    for (u32 mask = WARP / 2; mask > 0; mask /= 2) {
        u64 other = shuffle_xor(best, mask);
        best = other > best ? other : best;
    }
    if (threadIdx.x % WARP == 0) s.of_warp[threadIdx.x / WARP] = best;
    block_sync();
    for (u32 warp = 0; warp < THREADS / WARP; ++warp) best = s.of_warp[warp] > best ? s.of_warp[warp] : best;
    block_sync();
    return best;
}

// Walks from the heaviest token on until `limit`, at least 1, is reached: of masses, or of tokens. If it never is, ends at the
// lightest.
template <bool MASS>
__device__ __forceinline__ Place walk(const Sample& p, const Weights& weights, Shared& s, u64 limit) {
    Place place = {0, 0, 0};
    for (u32 shift = 32; shift > 0;) {
        shift -= 8;
        for (u32 i = threadIdx.x; i < 256; i += THREADS) s.masses[i] = s.counts[i] = 0;
        block_sync();
        // One at a time: several would leave too few registers.
#pragma unroll 1
        for (u32 token = threadIdx.x; token < p.vocabulary; token += THREADS) {
            u32 key = weights.key(token);
            if (key == 0 || (shift < 24 && key >> (shift + 8) != place.key)) continue;
            atomic_add(&s.counts[key >> shift & 255], 1u);
            atomic_add(&s.masses[key >> shift & 255], Weights::mass(key));
        }
        block_sync();
        if (threadIdx.x < WARP) {
            u64 mass = place.mass, at_mass = 0;
            u32 count = place.count, at_count = 0, digit = 256, lane = threadIdx.x;
            for (u32 base = 0; base < 256; base += WARP) {
                u32 bin = 255 - base - lane;
                u64 of_mass = s.masses[bin], masses = of_mass;
                u32 of_count = s.counts[bin], counts = of_count;
#pragma unroll
                for (u32 step = 1; step < WARP; step *= 2) {
                    u64 other_mass = shuffle(masses, lane >= step ? lane - step : lane);
                    u32 other_count = shuffle(counts, lane >= step ? lane - step : lane);
                    if (lane >= step) masses += other_mass, counts += other_count;
                }
                // The first bin that reaches the limit, or else the last that has anything.
                u32 reached = ballot((MASS ? mass + masses : count + counts) >= limit);
                u32 filled = ballot(of_count > 0);
                u32 owner = reached ? first_bit(reached) : filled ? 31 - leading_zeros(filled) : WARP;
                if (owner < WARP) {
                    digit = 255 - base - owner;
                    at_mass = mass + shuffle(masses - of_mass, owner);
                    at_count = count + shuffle(counts - of_count, owner);
                }
                if (reached) break;
                mass += shuffle(masses, WARP - 1);
                count += shuffle(counts, WARP - 1);
            }
            if (lane == 0) s.found[0] = digit, s.found[1] = at_mass, s.found[2] = at_count;
        }
        block_sync();
        place = {place.key << 8 | u32(s.found[0]), u32(s.found[2]), s.found[1]};
        block_sync();
    }
    return place;
}

// The sum of a number of each thread before this thread's, and in `all` of all threads.
__device__ __forceinline__ u64 sum_before(Shared& s, u64 own, u64& all) {
    u32 lane = threadIdx.x % WARP;
    u64 sum = own;
#pragma unroll
    for (u32 step = 1; step < WARP; step *= 2) {
        u64 other = shuffle(sum, lane >= step ? lane - step : lane);
        if (lane >= step) sum += other;
    }
    if (lane == WARP - 1) s.of_warp[threadIdx.x / WARP] = sum;
    block_sync();
    u64 before = 0;
    all = 0;
    for (u32 warp = 0; warp < THREADS / WARP; ++warp) {
        if (warp < threadIdx.x / WARP) before += s.of_warp[warp];
        all += s.of_warp[warp];
    }
    block_sync();
    return before + sum - own;
}

// Which of `total` equal parts a draw falls into.
__device__ __forceinline__ u64 part_of(double draw, u64 total) {
    u64 part = u64(draw * double(total));
    return part < total ? part : total - 1;
}

// In order of tokens, the one in whose share of what `of` gives number `at` falls. Each thread has neighbours.
template <class Of>
__device__ __forceinline__ u32 at_number(const Sample& p, Shared& s, u64 at, Of of) {
    u32 each = divide_up(p.vocabulary, THREADS), first = threadIdx.x * each;
    u32 last = first + each < p.vocabulary ? first + each : p.vocabulary;
    u64 own = 0, all;
    for (u32 token = first; token < last; ++token) own += of(token);
    u64 before = sum_before(s, own, all);
    if (threadIdx.x == 0) s.found[0] = NO_TOKEN;
    block_sync();
    if (at >= before && at < before + own) {
        for (u32 token = first; token < last; ++token) {
            u64 share = of(token);
            if (at < before + share) {
                s.found[0] = token;
                break;
            }
            before += share;
        }
    }
    block_sync();
    return u32(s.found[0]);
}

// Number `index` of the sequence that `seed` names, uniform in 0..1 with 53 bits: Philox4x32-10 (Salmon et al., 2011).
__device__ __forceinline__ double uniform(u64 seed, u64 index) {
    u32 counter[4] = {u32(index), u32(index >> 32), 0, 0}, key[2] = {u32(seed), u32(seed >> 32)};
#pragma unroll
    for (u32 round = 0; round < 10; ++round) {
        u64 a = u64(0xd2511f53) * counter[0], b = u64(0xcd9e8d57) * counter[2];
        u32 next[4] = {u32(b >> 32) ^ counter[1] ^ key[0], u32(b), u32(a >> 32) ^ counter[3] ^ key[1], u32(a)};
#pragma unroll
        for (u32 i = 0; i < 4; ++i) counter[i] = next[i];
        key[0] += 0x9e3779b9, key[1] += 0xbb67ae85;
    }
    return double((u64(counter[1]) << 32 | counter[0]) >> 11) * (1.0 / 9007199254740992.0);
}

struct Best {
    const float* logits;  // [rows, vocabulary]
    u32* tokens;          // [rows]
    float* values;        // [rows]
    u32 vocabulary;
};

// A row's largest value and its token, the lowest of equals. Where all are NaN, so is token 0.
KERNEL(best, THREADS, Best) {
    Shared& s = shared<Shared>();
    const float* logits = p.logits + u64(blockIdx.x) * p.vocabulary;
    u64 rank = largest(p.vocabulary, logits, s);
    if (threadIdx.x != 0) return;
    u32 token = rank ? NO_TOKEN - u32(rank) : 0;
    p.tokens[blockIdx.x] = token;
    p.values[blockIdx.x] = logits[token];
}

KERNEL(sample, THREADS, Sample) {
    Shared& s = shared<Shared>();
    const float* logits = p.logits + u64(blockIdx.x) * p.vocabulary;
    Rule rule = p.rules[blockIdx.x];
    u64 best = largest(p.vocabulary, logits, s);
    u32 token = NO_TOKEN - u32(best);
    float most = best ? logits[token] : infinity();
    if (!(most < infinity()) || most == -infinity()) {
        if (threadIdx.x == 0) p.tokens[blockIdx.x] = NO_TOKEN;
        return;
    }
    if (rule.temperature > 0.0f) {
        Weights weights = {logits, most, rule.temperature, rule.min_p};
        // Late, so that nothing of it is kept through the walks.
        auto drawn = [&](u64 total) { return part_of(uniform(rule.seed, rule.index), total); };
        u64 total;
        if (rule.top_k == 0 && rule.top_p >= 1.0f) {
            u64 own = 0;
            for (u32 i = threadIdx.x; i < p.vocabulary; i += THREADS) own += Weights::mass(weights.key(i));
            sum_before(s, own, total);
            token = at_number(p, s, drawn(total), [&](u32 i) { return Weights::mass(weights.key(i)); });
        } else {
            // What is kept ends within the tokens of one weight.
            Place end = walk<false>(p, weights, s, rule.top_k ? rule.top_k : NO_TOKEN);
            u64 equal = 0, all;
            for (u32 i = threadIdx.x; i < p.vocabulary; i += THREADS) equal += weights.key(i) == end.key;
            sum_before(s, equal, all);
            u64 kept = rule.top_k && rule.top_k - end.count < all ? rule.top_k - end.count : all;
            total = end.mass + kept * Weights::mass(end.key);
            if (rule.top_p < 1.0f) {
                u64 enough = rule.top_p > 0.0f ? u64(double(rule.top_p) * double(total)) : 0;
                end = walk<true>(p, weights, s, enough ? enough : 1);
                u64 mass = Weights::mass(end.key), missing = enough > end.mass ? enough - end.mass : 1;
                total = end.mass + (mass ? (missing + mass - 1) / mass * mass : 0);
            }
            u64 at = drawn(total);
            Place place = walk<true>(p, weights, s, at + 1);
            u64 mass = Weights::mass(place.key);
            u64 tie = mass ? (at - place.mass) / mass : 0;
            token = at_number(p, s, tie, [&](u32 i) { return u64(weights.key(i) == place.key); });
        }
    }
    if (threadIdx.x == 0) p.tokens[blockIdx.x] = token;
}
