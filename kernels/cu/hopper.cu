// The products of matmul.cu by Hopper's instructions for whole warpgroups (wgmma), with the matrix on the left: out' = w · x'. A
// warpgroup has 64 rows of matrices, and the rows of x are the columns of what it computes: 8 or 16 for decoding, up to 192 for
// prefills. For sm_90a only.
//
// Along k a product is cut into four segments, by a rule of k alone. Each is summed from its beginning on, 16 values at a time,
// and the four sums are added in order. Tiles for prefills compute the segments one after another. Tiles for decoding have a
// segment for each warp of a warpgroup: its 64 rows are 16 of the matrix, four times, and its columns the rows of x, four times,
// each with the values of a segment. Of what it computes only the quarter counts where both are of one segment; tensor cores have
// nothing else to do, and a matrix of 2048 rows keeps 128 blocks busy without an exchange between them.
//
// A row (a column here) has the same bits in tiles of any size, as far as a tensor core computes each column by itself and alike
// for any number of them: a GPU must confirm that.
//
// Both operands go through shared memory by plain asynchronous copies: rows of x lie wherever `order` says, and maps of tensors
// (TMA) would be one for each expert's matrix. bf16 is read from there by the tensor cores. Other formats are unpacked into
// registers, where lane c has eight neighbours of 32 values, for two instructions; x is put into the order that this makes of k.
#include "activation.cuh"
#include "product.cuh"
#include "weights.cuh"
#include "wgmma.cuh"

// Parts of k that are summed by themselves.
constexpr u32 SEGMENTS = 4;
// Values of a swizzled row.
constexpr u32 ATOM = SWIZZLED_ROW / 2;
// Values of one instruction.
constexpr u32 INSTRUCTION = 16;
// Tiles of rows that are computed at about one time, so that each brings its part of a matrix into the cache for the others.
constexpr u32 NEIGHBOURS = 8;

// A block computes TOKENS rows of x with `GROUPS` times 64 rows of matrices, DEPTH values of k at a time. SPLIT gives each warp a
// segment of its own. UNIT divides every group, and is what is summed before a group may end. TOGETHER units begin at once,
// each with sums of its own: only where each is a group.
template <class W, bool PAIR, bool SPLIT, u32 TOKENS, u32 GROUPS, u32 DEPTH, u32 UNIT, u32 TOGETHER, u32 STAGES>
struct Tile {
    static constexpr u32 THREADS = WARPGROUP * GROUPS;
    static constexpr u32 ROWS = 64 * GROUPS;
    static constexpr u32 COLUMNS = SPLIT ? SEGMENTS * TOKENS : TOKENS;
    static constexpr u32 MATRICES = PAIR ? 2 : 1;
    // A warp has 16 rows, of a pair 8 of each matrix; how many columns of `out` that makes for a block.
    static constexpr u32 OF_WARP = 16 / MATRICES;
    static constexpr u32 WIDTH = OF_WARP * GROUPS * (SPLIT ? 1 : 4);
    static constexpr u32 ATOMS = DEPTH / ATOM;
    static constexpr u32 W_BYTES = DEPTH * W::BITS / 8, W_UNITS = W_BYTES / 16;
    // Registers of a thread's sums, and of those that count: of SPLIT a quarter, once groups are folded.
    static constexpr u32 SUMS = COLUMNS / 2, KEPT = SPLIT && W::SCALED ? SUMS / 4 : SUMS;
    static constexpr u32 UNITS = DEPTH / UNIT;
    // Batches of a warpgroup that are under way while the next stage is waited for.
    static constexpr u32 UNDER_WAY = W::SCALED ? 0 : 1;
    static constexpr u32 AHEAD = STAGES - 1 - UNDER_WAY;

    struct Shared {
        u8 x[STAGES][ATOMS * COLUMNS * SWIZZLED_ROW];
        u8 w[STAGES][ROWS * W_BYTES];
        u32 scales[STAGES][W::SCALED ? UNITS * ROWS : 1];
        float totals[SPLIT || W::SCALED ? TOKENS * (ROWS + 4) : 1];
        u32 rows[TOKENS];
    };
    static_assert(ATOMS * COLUMNS * SWIZZLED_ROW % SWIZZLED_ALIGNMENT == 0, "a stage of x begins within a pattern");
    static_assert(W::SCALED || ROWS * W_BYTES % SWIZZLED_ALIGNMENT == 0, "a stage of w begins within a pattern");
    static_assert(sizeof(Shared) <= MOST_SHARED_HOPPER, "a block has too much shared memory");

    // What a thread brings of each stage: from where that of the first comes, and values of k until there is none.
    static constexpr u32 OWN_UNITS = ROWS * W_UNITS / THREADS;
    static constexpr u32 OWN_SCALES = (UNITS * ROWS + THREADS - 1) / THREADS;
    static_assert(ROWS * W_UNITS % THREADS == 0, "threads bring different numbers of units");
    struct Source {
        const u8* from;
        u32 left;
    };
    // And of the scales: those of the row, the value of k of the first stage, and values until there is none.
    struct ScaleSource {
        const typename W::Scale* row;
        u32 at, left;
    };

    const Product& p;
    Shared& s;
    Rows tile;
    // The block's first column of `out`, and values of a segment.
    u32 first_column, segment;
    const u8* matrices[2];
    Source sources[OWN_UNITS];
    ScaleSource scale_sources[OWN_SCALES];
    // 2^31 over the 32s of a group, rounded up.
    u32 inverse;

    // What row `row` of the block's left operand is.
    struct Place {
        u32 matrix, column, segment;
    };
    __device__ __forceinline__ Place place(u32 row) const {
        u32 warp = SPLIT ? row / 64 : row / 16, within = row % 16;
        return {within / OF_WARP, first_column + warp * OF_WARP + within % OF_WARP, SPLIT ? row / 16 % 4 : 0};
    }
    // Values of k before the end of a segment, or of all.
    __device__ __forceinline__ u32 end(u32 of_segment) const {
        u32 end = SPLIT ? (of_segment + 1) * segment : p.k;
        return end < p.k ? end : p.k;
    }

    // Where unit `unit` of a row of packed weights lies: so that the rows which are read at once lie in different banks.
    static __device__ constexpr u32 w_unit(u32 row, u32 unit) {
        // Four rows of bytes are read at once, and eight of nibbles.
        u32 other = W::BITS == 8 ? (W_UNITS == 8 ? row & 3 : row >> 1 & 1) << 1 : W_UNITS == 4 ? row >> 1 & 3 : row >> 2 & 1;
        return row * W_UNITS + (unit ^ other);
    }

    // Columns that no row of x has are zeros in every stage.
    __device__ __forceinline__ void fetch_zeros() {
        u32 columns = (TOKENS - tile.count) * (COLUMNS / TOKENS) * ATOMS * 8, atoms = COLUMNS / TOKENS * ATOMS;
#pragma unroll 1
        for (u32 i = threadIdx.x; i < columns * STAGES; i += THREADS) {
            u32 stage = i / columns, unit = i % 8, at = i % columns / 8;
            u32 column = tile.count + at / atoms + at % atoms / ATOMS * TOKENS;
            copy_async(s.x[stage] + at % ATOMS * COLUMNS * SWIZZLED_ROW + swizzled(column, unit), p.x, false);
        }
    }

    __device__ __forceinline__ void fetch_x(u32 step) {
        constexpr u32 WORDS = W::SCALED ? 1 : 4, PIECES = ATOM / 2 / WORDS, EACH = COLUMNS / TOKENS * ATOMS;
        u32 stage = step % STAGES, piece = threadIdx.x % PIECES;
        // In units of 16 bytes: two for each of the instructions.
        u32 unit = piece, byte = 0;
        if constexpr (W::SCALED) unit = piece / 16 * 4 + piece % 4, byte = 4 * (piece / 4 % 4);
#pragma unroll 2
        for (u32 i = threadIdx.x / PIECES; i < tile.count * EACH; i += THREADS / PIECES) {
            u32 token = i / EACH, atom = i % ATOMS, of = i % EACH / ATOMS, column = of * TOKENS + token;
            u32 at = of * segment + step * DEPTH + atom * ATOM + piece * 2 * WORDS;
            bool valid = at < end(of);
            const bf16* from = valid ? p.x + u64(s.rows[token]) * p.k + at : p.x;
            u8* to = s.x[stage] + atom * COLUMNS * SWIZZLED_ROW + swizzled(column, unit) + byte;
            if constexpr (W::SCALED) copy_async_word(to, from, valid);
            else copy_async(to, from, valid);
        }
    }

    // Where unit `unit` of a row of weights lies in a stage.
    static __device__ constexpr u32 w_byte(u32 row, u32 unit) {
        return W::SCALED ? 16 * w_unit(row, unit) : unit / 8 * ROWS * SWIZZLED_ROW + swizzled(row, unit % 8);
    }

    __device__ __forceinline__ Source source(u32 i) const {
        Place of = place(i / W_UNITS);
        u32 at = of.segment * segment + i % W_UNITS * (128 / W::BITS), last = end(of.segment);
        const u8* matrix = PAIR && of.matrix == 1 ? matrices[1] : matrices[0];
        return {matrix + (u64(of.column) * p.row_step * p.k + at) * W::BITS / 8, of.column < p.n && at < last ? last - at : 0};
    }

    __device__ __forceinline__ void fetch_w(u32 step) {
#pragma unroll
        for (u32 j = 0; j < OWN_UNITS; ++j) {
            u32 i = threadIdx.x + j * THREADS;
            bool valid = step * DEPTH < sources[j].left;
            const u8* from = valid ? sources[j].from + u64(step) * W_BYTES : matrices[0];
            copy_async(s.w[step % STAGES] + w_byte(i / W_UNITS, i % W_UNITS), from, valid);
        }
    }

    // The scale of a row of the left operand: where the first of its groups is.
    __device__ __forceinline__ const typename W::Scale* scales(const Place& of) const {
        auto all = reinterpret_cast<const typename W::Scale*>(p.scales[of.matrix * p.experts + tile.expert]);
        u64 row = of.column < p.n ? u64(of.column) * p.row_step / p.scale_rows : 0;
        return all + row * divide_up(p.k, p.group);
    }

    // The group that a value of k is in: a division by the group's 32s, exact as far as k and a group are within 2^20.
    __device__ __forceinline__ u32 group_of(u32 at) const { return u32(u64(at / CHUNK) * inverse >> 31); }

    // The word that a unit's scale is in.
    __device__ __forceinline__ void fetch_scales(u32 step) {
#pragma unroll
        for (u32 j = 0; j < OWN_SCALES; ++j) {
            u32 i = threadIdx.x + j * THREADS;
            if (i >= UNITS * ROWS) break;
            bool valid = step * DEPTH < scale_sources[j].left;
            u32 group = valid ? group_of(scale_sources[j].at + step * DEPTH) : 0;
            u64 from = reinterpret_cast<u64>(scale_sources[j].row + group);
            copy_async_word(&s.scales[step % STAGES][i], reinterpret_cast<const void*>(from & ~u64(3)), valid);
        }
    }
    __device__ __forceinline__ ScaleSource scale_source(u32 i) const {
        Place of = place(i % ROWS);
        u32 at = of.segment * segment + i / ROWS % UNITS * UNIT, last = end(of.segment);
        return {scales(of), at, at < last ? last - at : 0};
    }

    __device__ __forceinline__ void fetch(u32 step) {
        fetch_x(step);
        fetch_w(step);
        if constexpr (W::SCALED) fetch_scales(step);
    }

    // What a thread knows of the scales of its rows, g and g + 8 of its warp.
    struct Scales {
        // Where in a word the first of a row's groups begins, bytes.
        u32 bytes[2];
        // Values of k until the group ends.
        u32 left;
    };
    __device__ __forceinline__ Scales scales_from(u32 at) const {
        Scales own{{0, 0}, p.group - at % p.group};
#pragma unroll
        for (u32 half = 0; half < 2; ++half)
            own.bytes[half] = u32(reinterpret_cast<u64>(scales(place(own_row(half)))) % 4);
        return own;
    }
    static __device__ __forceinline__ u32 own_row(u32 half) {
        return threadIdx.x / WARP * 16 + half * 8 + threadIdx.x % WARP / 4;
    }

    // Adds the sum of a group times its scales, if the group or the segment ends with the unit at `at`. Groups of 32 values in
    // units of so many end with each; elsewhere a group may begin in one segment and end in the next.
    __device__ __forceinline__ bool fold(const float (&part)[SUMS], float (&sums)[KEPT], Scales& own, const u32* words, u32 at,
                                         u32 last) const {
        if (at >= last) return false;
        own.left -= UNIT;
        if (own.left != 0 && at + UNIT < last) return false;
        if (own.left == 0) own.left = p.group;
#pragma unroll
        for (u32 half = 0; half < 2; ++half) {
            u32 word = words[own_row(half)];
            float factor;
            if constexpr (sizeof(typename W::Scale) == 1) {
                factor = factor_of(u8(word >> 8 * ((own.bytes[half] + group_of(at)) % 4)));
            } else {
                factor = float_of_bits(word);
            }
#pragma unroll
            for (u32 quarter = 0; quarter < SUMS / KEPT; ++quarter) {
                if (SPLIT && quarter != threadIdx.x / WARP % 4) continue;
#pragma unroll
                for (u32 j = 0; j < KEPT; ++j)
                    if (j / 2 % 2 == half) sums[j] = fmaf(part[quarter * KEPT + j], factor, sums[j]);
            }
        }
        return true;
    }

    template <u32 COUNT>
    static __device__ __forceinline__ void clear(float (&sums)[COUNT]) {
#pragma unroll
        for (u32 i = 0; i < COUNT; ++i) sums[i] = 0.0f;
    }

    // The right operand of instruction `i` of a stage.
    __device__ __forceinline__ u64 right(u32 stage, u32 i) const {
        u32 atom = i / (ATOM / INSTRUCTION), within = i % (ATOM / INSTRUCTION);
        return operand_at(shared_address(s.x[stage] + atom * COLUMNS * SWIZZLED_ROW + within * INSTRUCTION * 2));
    }
    // The left one, where tensor cores read it from shared memory.
    __device__ __forceinline__ u64 left(u32 stage, u32 i) const {
        u32 atom = i / (ATOM / INSTRUCTION), within = i % (ATOM / INSTRUCTION), row = threadIdx.x / WARPGROUP * 64;
        return operand_at(shared_address(s.w[stage] + (atom * ROWS + row) * SWIZZLED_ROW + within * INSTRUCTION * 2));
    }

    // Makes the next stage ready for products. Behind it, everybody has done with the stage that is overwritten next.
    __device__ __forceinline__ void arrive() const {
        copies_wait<AHEAD - 1>();
        shared_for_products();
        block_sync();
    }
    __device__ __forceinline__ void fetch_ahead(u32 step, u32 steps) {
        if (step + AHEAD < steps) fetch(step + AHEAD);
        copies_commit();
    }

    // A stage of scaled weights into `sums`. `part` is of the group that is under way.
    __device__ __forceinline__ void step_scaled(float (&part)[TOGETHER][SUMS], float (&sums)[KEPT], bool& fresh, Scales& own,
                                                u32 step, u32 steps, u32 begin, u32 last) {
        constexpr u32 INSTRUCTIONS = UNIT / INSTRUCTION;
        u32 stage = step % STAGES, c = threadIdx.x % WARP % 4;
#pragma unroll
        for (u32 first = 0; first < UNITS; first += TOGETHER) {
            u32 a[TOGETHER * INSTRUCTIONS][4];
#pragma unroll
            for (u32 chunk = 0; chunk < TOGETHER * UNIT / CHUNK; ++chunk) {
                u32 byte = ((first * UNIT + chunk * CHUNK) + c * 8) * W::BITS / 8, w[2][4];
#pragma unroll
                for (u32 half = 0; half < 2; ++half)
                    W::unpack(s.w[stage] + 16 * w_unit(own_row(half), byte / 16) + byte % 16, w[half]);
#pragma unroll
                for (u32 i = 0; i < 4; ++i) {
                    a[2 * chunk][i] = w[i % 2][i / 2];
                    a[2 * chunk + 1][i] = w[i % 2][2 + i / 2];
                }
            }
#pragma unroll
            for (u32 i = 0; i < TOGETHER * INSTRUCTIONS; ++i) settle(a[i]);
#pragma unroll
            for (u32 unit = 0; unit < TOGETHER; ++unit) settle(part[unit]);
            products_begin();
#pragma unroll
            for (u32 unit = 0; unit < TOGETHER; ++unit)
#pragma unroll
                for (u32 i = 0; i < INSTRUCTIONS; ++i) {
                    u32 at = unit * INSTRUCTIONS + i;
                    // Sums that are cleared when they are folded, or that a group has to itself, or that only follow on.
                    bool add = i > 0 || (TOGETHER == 1 && (SPLIT || !fresh));
                    multiply(part[unit], a[at], right(stage, first * INSTRUCTIONS + at), add);
                }
            products_commit();
            if (first == 0) fetch_ahead(step, steps);
            products_wait<0>();
            fresh = false;
#pragma unroll
            for (u32 unit = 0; unit < TOGETHER; ++unit) {
                settle(part[unit]);
                const u32* words = s.scales[stage] + (first + unit) * ROWS;
                u32 at = begin + step * DEPTH + (first + unit) * UNIT;
                bool folded = fold(part[unit], sums, own, words, at, last);
                // Warps have segments of their own, which end groups elsewhere, but start their products together.
                if constexpr (SPLIT) {
                    if (folded && TOGETHER == 1) clear(part[unit]);
                } else {
                    fresh = folded;
                }
            }
        }
    }

    // A stage of bf16 into `sums`; they are there when the next but one has begun.
    __device__ __forceinline__ void step_plain(float (&sums)[SUMS], bool fresh, u32 step, u32 steps) {
        products_begin();
#pragma unroll
        for (u32 i = 0; i < DEPTH / INSTRUCTION; ++i) multiply(sums, left(step % STAGES, i), right(step % STAGES, i), i > 0 || !fresh);
        products_commit();
        fetch_ahead(step, steps);
        products_wait<UNDER_WAY>();
    }

    // Where sums lie in shared memory before they are written to `out`: so that a warp's are in different banks.
    static __device__ __forceinline__ u32 sum_at(u32 token, u32 row) { return token * (ROWS + 4) + row; }

    // Adds a segment's sums to the totals. Every number has a thread of its own.
    __device__ __forceinline__ void add_to(float* totals, const float (&sums)[SUMS], bool begin) const {
        u32 c = threadIdx.x % WARP % 4;
#pragma unroll
        for (u32 j = 0; j < SUMS; ++j) {
            float& total = totals[sum_at(j / 4 * 8 + c * 2 + j % 2, own_row(j / 2 % 2))];
            total = (begin ? 0.0f : total) + sums[j];
        }
    }

    // A warp's quarter of what was computed: the sums of its segment.
    __device__ __forceinline__ void keep_segment(const float (&sums)[KEPT]) const {
        u32 c = threadIdx.x % WARP % 4, of = threadIdx.x / WARP % 4;
#pragma unroll
        for (u32 j = 0; j < KEPT; ++j) {
            u32 column = j / 4 * 8 + c * 2 + j % 2;
            if (KEPT < SUMS || column / TOKENS == of) s.totals[sum_at(column % TOKENS, own_row(j / 2 % 2))] = sums[j];
        }
    }
    __device__ __forceinline__ float total(const float* totals, u32 token, u32 row) const {
        if constexpr (!SPLIT) return totals[sum_at(token, row)];
        float sum = 0.0f;
#pragma unroll
        for (u32 of = 0; of < SEGMENTS; ++of) sum += totals[sum_at(token, row / 16 * 64 + of * 16 + row % 16)];
        return sum;
    }

    __device__ __forceinline__ void write(const float* totals) const {
        block_sync();
#pragma unroll 1
        for (u32 i = threadIdx.x; i < WIDTH * tile.count; i += THREADS) {
            u32 token = i / WIDTH, within = i % WIDTH, column = first_column + within;
            if (column >= p.out_width) continue;
            u32 row = within / OF_WARP * 16 + within % OF_WARP;
            u64 at = u64(tile.first + token) * p.out_width + column;
            bool is = column < p.n;
            auto biased = [&](u32 matrix) {
                if (!is) return 0.0f;
                float sum = total(totals, token, row + 8 * matrix);
                if (!p.biases) return sum;
                return sum + reinterpret_cast<const float*>(p.biases[matrix * p.experts + tile.expert])[column];
            };
            if constexpr (PAIR) {
                float gate = biased(0), up = biased(1);
                float x = p.clamped ? ClampedSwiglu{p.alpha, p.limit}(gate, up) : SiluMul()(gate, up);
                static_cast<bf16*>(p.out)[at] = narrow(is ? x : 0.0f);
            } else {
                static_cast<float*>(p.out)[at] = biased(0);
            }
        }
    }

    __device__ __forceinline__ void run() {
        static_assert(!W::SCALED || no_bank_twice(W::BITS, [](u32 lane) {
            u32 byte = lane % 4 * W::BITS;
            return 16 * w_unit(lane / 4, byte / 16) + byte % 16;
        }), "w is read in conflict");
        for (u32 i = threadIdx.x; i < tile.count; i += THREADS) s.rows[i] = p.order ? p.order[tile.first + i] : tile.first + i;
        block_sync();
        u32 steps = divide_up(SPLIT ? segment : p.k, DEPTH), of = SPLIT ? threadIdx.x / WARP % 4 : 0;
#pragma unroll
        for (u32 j = 0; j < OWN_UNITS; ++j) {
            sources[j] = source(threadIdx.x + j * THREADS);
            keep(sources[j].from), keep(sources[j].left);
        }
        if constexpr (W::SCALED) {
            inverse = divide_up(1u << 31, p.group / CHUNK);
#pragma unroll
            for (u32 j = 0; j < OWN_SCALES; ++j) {
                scale_sources[j] = scale_source(threadIdx.x + j * THREADS);
                keep(scale_sources[j].row), keep(scale_sources[j].at), keep(scale_sources[j].left);
            }
        }
        fetch_zeros();
        for (u32 step = 0; step < AHEAD; ++step) {
            if (step < steps) fetch(step);
            copies_commit();
        }
        float part[W::SCALED ? TOGETHER : 1][SUMS], sums[KEPT], totals[!SPLIT && !W::SCALED ? SUMS : 1];
        Scales own{};
        if constexpr (W::SCALED) {
            own = scales_from(of * segment);
#pragma unroll
            for (u32 i = 0; i < TOGETHER; ++i) clear(part[i]);
        }
        clear(sums);
        settle(sums);
#pragma unroll
        for (float& total : totals) total = 0.0f;
        u32 begin = of * segment, last = end(of);
        if constexpr (!SPLIT) last = segment < p.k ? segment : p.k;
        bool fresh = true, first = true;
        // Copies of the loop's body would move sums while products are under way.
#pragma unroll 1
        for (u32 step = 0; step < steps; ++step) {
            arrive();
            if constexpr (W::SCALED) step_scaled(part, sums, fresh, own, step, steps, begin, last);
            else step_plain(sums, fresh, step, steps), fresh = false;
            if constexpr (!SPLIT) {
                // The end of a segment.
                if ((step + 1) * DEPTH < last) continue;
                if constexpr (W::SCALED) {
                    add_to(s.totals, sums, first);
                    clear(sums);
                } else {
                    products_wait<0>();
                    settle(sums);
#pragma unroll
                    for (u32 i = 0; i < SUMS; ++i) totals[i] += sums[i];
                }
                fresh = true, first = false;
                last = last + segment < p.k ? last + segment : p.k;
            }
        }
        products_wait<0>();
        if constexpr (SPLIT) {
            settle(sums);
            keep_segment(sums);
            write(s.totals);
        } else if constexpr (W::SCALED) {
            write(s.totals);
        } else {
            // All stages are done with.
            block_sync();
            static_assert(sizeof(s.x) >= sizeof(float) * TOKENS * (ROWS + 4) || W::SCALED || SPLIT, "sums do not fit");
            float* all = reinterpret_cast<float*>(s.x);
            add_to(all, totals, true);
            write(all);
        }
    }
};

// Values of k of a segment, whole swizzled rows.
__device__ __forceinline__ u32 segment_of(u32 k) { return divide_up(k, SEGMENTS * ATOM) * ATOM; }

template <class Tile>
__device__ __forceinline__ void run(const Product& p, const Rows& rows, u32 column) {
    Tile tile{p, swizzled_shared<typename Tile::Shared>(), rows, column * Tile::WIDTH, segment_of(p.k), {}, {}, {}, 0};
#pragma unroll
    for (u32 i = 0; i < Tile::MATRICES; ++i)
        tile.matrices[i] = reinterpret_cast<const u8*>(p.weights[i * p.experts + rows.expert]);
    tile.run();
}

// Chooses how much of a group is summed at once.
template <class W, bool PAIR, bool SPLIT, u32 TOKENS, u32 GROUPS, u32 DEPTH, u32 STAGES>
__device__ __forceinline__ void best(const Product& p, const Rows& rows, u32 column) {
    if constexpr (!W::SCALED) {
        run<Tile<W, PAIR, SPLIT, TOKENS, GROUPS, DEPTH, DEPTH, 1, STAGES>>(p, rows, column);
    } else {
        // Groups of 32 values are each an end; as many begin at once as registers are left.
        constexpr u32 UNITS = SPLIT && W::BITS == 4 ? 32 / TOKENS : 1;
        if constexpr (sizeof(typename W::Scale) == sizeof(float)) {
            if (p.group % ATOM == 0)
                return run<Tile<W, PAIR, SPLIT, TOKENS, GROUPS, DEPTH, ATOM, 1, STAGES>>(p, rows, column);
            if (UNITS > 1 && p.group != CHUNK)
                return run<Tile<W, PAIR, SPLIT, TOKENS, GROUPS, DEPTH, CHUNK, 1, STAGES>>(p, rows, column);
        }
        run<Tile<W, PAIR, SPLIT, TOKENS, GROUPS, DEPTH, CHUNK, UNITS, STAGES>>(p, rows, column);
    }
}

// Finds the block's tile.
template <class W, bool PAIR, bool SPLIT, u32 TOKENS, u32 GROUPS, u32 DEPTH, u32 STAGES>
__device__ __forceinline__ void product(const Product& p) {
    u32 block = blockIdx.y * gridDim.x + blockIdx.x, band = block / (NEIGHBOURS * gridDim.x);
    u32 within = block % (NEIGHBOURS * gridDim.x), height = gridDim.y - band * NEIGHBOURS;
    if (height > NEIGHBOURS) height = NEIGHBOURS;
    Rows rows;
    if (!find(p, band * NEIGHBOURS + within % height, TOKENS, rows)) return;
    u32 column = within / height;
    if constexpr (SPLIT) {
        best<W, PAIR, SPLIT, TOKENS, GROUPS, DEPTH, STAGES>(p, rows, column);
    } else {
        // Not many more columns than there are rows of x. What is unpacked for each is the same: fewer kinds suffice there.
        if (rows.count <= 32) return best<W, PAIR, SPLIT, 32, GROUPS, DEPTH, STAGES>(p, rows, column);
        if constexpr (!W::SCALED) {
            if (rows.count <= 64) return best<W, PAIR, SPLIT, 64, GROUPS, DEPTH, STAGES>(p, rows, column);
            if (rows.count <= 128) return best<W, PAIR, SPLIT, 128, GROUPS, DEPTH, STAGES>(p, rows, column);
        }
        best<W, PAIR, SPLIT, TOKENS, GROUPS, DEPTH, STAGES>(p, rows, column);
    }
}

KERNEL(hopper_bf16_8, 128, Product) { product<Bf16, false, true, 8, 1, 64, 6>(p); }
KERNEL(hopper_bf16_16, 256, Product) { product<Bf16, false, true, 16, 2, 64, 4>(p); }
KERNEL(hopper_bf16_large, 256, Product) { product<Bf16, false, false, 192, 2, 64, 5>(p); }
KERNEL(hopper_bf16_pair_8, 128, Product) { product<Bf16, true, true, 8, 1, 64, 6>(p); }
KERNEL(hopper_bf16_pair_16, 256, Product) { product<Bf16, true, true, 16, 2, 64, 4>(p); }
KERNEL(hopper_bf16_pair_large, 256, Product) { product<Bf16, true, false, 192, 2, 64, 5>(p); }
KERNEL(hopper_int8_8, 128, Product) { product<Int8, false, true, 8, 1, 128, 4>(p); }
KERNEL(hopper_int8_16, 256, Product) { product<Int8, false, true, 16, 2, 64, 5>(p); }
KERNEL(hopper_int8_large, 256, Product) { product<Int8, false, false, 128, 2, 64, 6>(p); }
KERNEL(hopper_int8_pair_8, 128, Product) { product<Int8, true, true, 8, 1, 128, 4>(p); }
KERNEL(hopper_int8_pair_16, 256, Product) { product<Int8, true, true, 16, 2, 64, 5>(p); }
KERNEL(hopper_int8_pair_large, 256, Product) { product<Int8, true, false, 128, 2, 64, 6>(p); }
KERNEL(hopper_fp8_8, 128, Product) { product<Fp8, false, true, 8, 1, 128, 4>(p); }
KERNEL(hopper_fp8_16, 256, Product) { product<Fp8, false, true, 16, 2, 64, 5>(p); }
KERNEL(hopper_fp8_large, 256, Product) { product<Fp8, false, false, 128, 2, 64, 6>(p); }
KERNEL(hopper_fp8_pair_8, 128, Product) { product<Fp8, true, true, 8, 1, 128, 4>(p); }
KERNEL(hopper_fp8_pair_16, 256, Product) { product<Fp8, true, true, 16, 2, 64, 5>(p); }
KERNEL(hopper_fp8_pair_large, 256, Product) { product<Fp8, true, false, 128, 2, 64, 6>(p); }
KERNEL(hopper_int4_8, 128, Product) { product<Int4, false, true, 8, 1, 128, 8>(p); }
KERNEL(hopper_int4_16, 256, Product) { product<Int4, false, true, 16, 2, 128, 5>(p); }
KERNEL(hopper_int4_large, 256, Product) { product<Int4, false, false, 128, 2, 64, 6>(p); }
KERNEL(hopper_int4_pair_8, 128, Product) { product<Int4, true, true, 8, 1, 128, 8>(p); }
KERNEL(hopper_int4_pair_16, 256, Product) { product<Int4, true, true, 16, 2, 128, 5>(p); }
KERNEL(hopper_int4_pair_large, 256, Product) { product<Int4, true, false, 128, 2, 64, 6>(p); }
KERNEL(hopper_mxfp4_8, 128, Product) { product<Mxfp4, false, true, 8, 1, 128, 8>(p); }
KERNEL(hopper_mxfp4_16, 256, Product) { product<Mxfp4, false, true, 16, 2, 128, 5>(p); }
KERNEL(hopper_mxfp4_large, 256, Product) { product<Mxfp4, false, false, 128, 2, 64, 6>(p); }
KERNEL(hopper_mxfp4_pair_8, 128, Product) { product<Mxfp4, true, true, 8, 1, 128, 8>(p); }
KERNEL(hopper_mxfp4_pair_16, 256, Product) { product<Mxfp4, true, true, 16, 2, 128, 5>(p); }
KERNEL(hopper_mxfp4_pair_large, 256, Product) { product<Mxfp4, true, false, 128, 2, 64, 6>(p); }
