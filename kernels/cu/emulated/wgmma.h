// The products of warpgroups (wgmma.cuh) on a CPU. They are done only when they are waited for, as late as a GPU may: until then
// their sums are NaN, and whoever changes an operand changes the result. What a GPU leaves undefined is an error: a product that no
// fence comes before, one of the threads' writes to shared memory that products do not see yet, threads that start others.
#pragma once

template <class Shared>
Shared& swizzled_shared() {
    emulated::require(reinterpret_cast<u64>(emulated::grid().memory) % SWIZZLED_ALIGNMENT == 0, "shared memory is not aligned");
    return shared<Shared>();
}

inline u32 shared_address(const void* at) { return u32(static_cast<const u8*>(at) - emulated::grid().memory); }

inline void copy_async_word(void* shared, const void* global, bool valid) {
    emulated::require(reinterpret_cast<u64>(shared) % 4 == 0, "a copy's target is not aligned");
    emulated::require(!valid || reinterpret_cast<u64>(global) % 4 == 0, "a copy's source is not aligned");
    emulated::thread().copies.push_back({shared, valid ? global : nullptr, 4, emulated::thread().commits});
}

inline void shared_for_products() {
    for (u32 word : emulated::thread().unseen) emulated::grid().unseen[word] = false;
    emulated::thread().unseen.clear();
}

inline void products_begin() { emulated::thread().products_begun = true; }
inline void products_commit() {
    ++emulated::thread().products_commits;
    emulated::thread().products_begun = false;
}
template <u32 COUNT>
void settle(float (&)[COUNT]) {}
inline void settle(u32 (&)[4]) {}
template <class T>
void keep(T&) {}

namespace emulated {

// What nobody may see or change while products are under way.
constexpr u32 NOT_YET = 0x7fc0dead;

inline void start(float* sums, u32 columns, const u32* registers, u64 left, u64 right, bool add) {
    Thread& t = thread();
    require(t.products_begun, "a product is started without products_begin");
    Sums* own = nullptr;
    for (Sums& other : t.sums) {
        if (other.at == sums) own = &other;
    }
    if (!own) {
        t.sums.push_back({sums, std::vector<float>(sums, sums + columns / 2), 0});
        own = &t.sums.back();
        for (u32 i = 0; i < columns / 2; ++i) sums[i] = float_of_bits(NOT_YET);
    }
    ++own->under_way;
    Started product{sums, columns, add, left, right, registers, {}, t.products_commits};
    if (registers) memcpy(product.were, registers, sizeof product.were);
    t.products.push_back(product);
}

// Value [row][k] of an operand in shared memory: its descriptor's bits 0 to 13 are where it begins, 32 to 45 how far eight rows
// are from the next, in 16 bytes; bits 49 to 51 are a pattern that begins elsewhere, 62 and 63 the swizzle.
inline float value_of(u64 operand, u32 row, u32 k) {
    Grid& g = grid();
    require(operand >> 62 == 1, "only the 128-byte swizzle is emulated");
    require((operand >> 49 & 7) == 0, "an operand's pattern begins at no multiple of 1024");
    u32 at = u32(operand & 0x3fff) * 16 + row / 8 * u32(operand >> 32 & 0x3fff) * 16 + row % 8 * SWIZZLED_ROW + 2 * k;
    // Units of 16 bytes change places by the bits of the address above them.
    at ^= (at >> 7 & 7) << 4;
    require(at + 2 <= g.memory_size, "an operand is not within shared memory");
    require(!g.unseen[at / 4], "a product reads what its threads wrote, without shared_for_products");
    u16 bits;
    memcpy(&bits, g.memory + at, sizeof bits);
    return float_of_bits(u32(bits) << 16);
}

// Product number `i` of a warpgroup's threads.
inline void multiply_now(void** threads, u32 i) {
    auto of = [&](u32 thread) -> Thread& { return *static_cast<Thread*>(threads[thread]); };
    const Started& one = of(0).products[i];
    float left[64][16];
    for (u32 thread = 0; thread < WARPGROUP; ++thread) {
        const Started& own = of(thread).products[i];
        require(own.columns == one.columns && own.add == one.add && own.left == one.left && own.right == one.right &&
                    !own.registers == !one.registers,
                "threads of a warpgroup start different products");
        if (!own.registers) continue;
        require(memcmp(own.were, own.registers, sizeof own.were) == 0, "registers change while a product reads them");
        u32 g = thread / WARP * 16 + thread % WARP / 4, k = 2 * (thread % 4);
        for (u32 r = 0; r < 4; ++r) {
            float* pair = &left[g + r % 2 * 8][k + r / 2 * 8];
            pair[0] = low_half(own.were[r]), pair[1] = high_half(own.were[r]);
        }
    }
    if (!one.registers) {
        for (u32 row = 0; row < 64; ++row)
            for (u32 k = 0; k < 16; ++k) left[row][k] = value_of(one.left, row, k);
    }
    std::vector<float> right(one.columns * 16);
    for (u32 column = 0; column < one.columns; ++column)
        for (u32 k = 0; k < 16; ++k) right[column * 16 + k] = value_of(one.right, column, k);
    for (u32 thread = 0; thread < WARPGROUP; ++thread) {
        Started& own = of(thread).products[i];
        for (Sums& sums : of(thread).sums) {
            if (sums.at != own.sums) continue;
            for (u32 j = 0; j < one.columns / 2; ++j) {
                const float* row = left[thread / WARP * 16 + thread % WARP / 4 + j / 2 % 2 * 8];
                const float* column = &right[(j / 4 * 8 + 2 * (thread % 4) + j % 2) * 16];
                double sum = own.add ? sums.values[j] : 0.0;
                for (u32 k = 0; k < 16; ++k) sum += double(row[k]) * double(column[k]);
                sums.values[j] = float(sum);
            }
            --sums.under_way;
        }
    }
}

}  // namespace emulated

template <int Pending>
void products_wait() {
    using namespace emulated;
    Thread& t = thread();
    meet(grid().warpgroups, "products_wait", &t, [](void** threads) {
        auto done = [](void* thread) {
            const Thread& t = *static_cast<Thread*>(thread);
            size_t count = 0;
            while (count < t.products.size() && t.products[count].commit + Pending < t.products_commits) ++count;
            return count;
        };
        size_t count = done(threads[0]);
        for (u32 i = 1; i < WARPGROUP; ++i) require(done(threads[i]) == count, "threads of a warpgroup start different products");
        for (size_t i = 0; i < count; ++i) multiply_now(threads, u32(i));
        for (u32 i = 0; i < WARPGROUP; ++i) {
            auto& products = static_cast<Thread*>(threads[i])->products;
            products.erase(products.begin(), products.begin() + count);
        }
    });
    size_t kept = 0;
    for (Sums& sums : t.sums) {
        for (size_t i = 0; i < sums.values.size(); ++i)
            require(bits_of_float(sums.at[i]) == NOT_YET, "sums are touched while products are under way");
        if (sums.under_way == 0) memcpy(sums.at, sums.values.data(), sums.values.size() * sizeof(float));
        else std::swap(t.sums[kept++], sums);
    }
    t.sums.resize(kept);
}

template <u32 COUNT>
void multiply(float (&d)[COUNT], u64 a, u64 b, bool add) {
    emulated::start(d, 2 * COUNT, nullptr, a, b, add);
}
template <u32 COUNT>
void multiply(float (&d)[COUNT], const u32 (&a)[4], u64 b, bool add) {
    emulated::start(d, 2 * COUNT, a, 0, b, add);
}
