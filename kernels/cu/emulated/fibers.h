// Blocks of threads as fibers: each runs until it must wait for others, then the next one does.
#pragma once

#include <setjmp.h>
#include <sys/mman.h>
#include <ucontext.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <memory>
#include <string>
#include <vector>

namespace emulated {

// Of one thread; a kernel keeps little on it.
constexpr size_t STACK_BYTES = 64 << 10;

struct Index {
    u32 x, y, z;
};

// One copy from global to shared memory that was not waited for.
struct Copy {
    void* to;
    const void* from;
    u32 commit;
};

// What the lanes of a warp do together.
struct Warp {
    const char* what;
    u32 arrived, turn;
    void* operands[WARP];
};

struct Thread {
    Index index;
    bool finished, started;
    // Waits while *watched is `seen`.
    const u32* watched;
    u32 seen;
    std::vector<Copy> copies;
    u32 commits;
    jmp_buf place;
    ucontext_t context;
    void* stack;
};

struct Grid {
    Index block_index, block_size, size;
    u8* memory;
    size_t memory_size;
    std::vector<Thread> threads;
    std::vector<Warp> warps;
    u32 at_barrier, barriers;
    Thread* current;
    jmp_buf scheduler;
    const std::function<void()>* body;
    std::string error;
};

inline Grid& grid() {
    static thread_local Grid grid;
    return grid;
}
inline Thread& thread() { return *grid().current; }

// Back to the scheduler, until it comes here again.
__attribute__((noinline)) inline void pause() {
    Grid& g = grid();
    if (_setjmp(g.current->place) == 0) _longjmp(g.scheduler, 1);
}

[[noreturn]] inline void fail(const std::string& what) {
    Grid& g = grid();
    char place[96];
    snprintf(place, sizeof place, " (block %u %u %u, thread %u)", g.block_index.x, g.block_index.y, g.block_index.z,
             thread().index.x);
    g.error = what + place;
    _longjmp(g.scheduler, 1);
}

inline void require(bool condition, const char* what) {
    if (!condition) fail(what);
}

inline void wait(const u32& watched, u32 seen) {
    thread().watched = &watched, thread().seen = seen;
    pause();
    thread().watched = nullptr;
}

// Waits until all lanes of the warp are here; the last one does the work on everybody's operands.
template <class Work>
void meet(const char* what, void* operand, Work work) {
    Grid& g = grid();
    u32 index = thread().index.x;
    Warp& warp = g.warps[index / WARP];
    if (warp.arrived == 0) warp.what = what;
    if (strcmp(warp.what, what) != 0) fail(std::string("lanes of a warp are in ") + warp.what + " and " + what);
    warp.operands[index % WARP] = operand;
    u32 turn = warp.turn;
    if (++warp.arrived == WARP) {
        work(warp.operands);
        warp.arrived = 0;
        ++warp.turn;
    } else {
        wait(warp.turn, turn);
    }
}

inline void block_sync() {
    Grid& g = grid();
    u32 barrier = g.barriers;
    if (++g.at_barrier == g.threads.size()) {
        g.at_barrier = 0;
        ++g.barriers;
    } else {
        wait(g.barriers, barrier);
    }
}

inline void fiber() {
    (*grid().body)();
    thread().finished = true;
    _longjmp(grid().scheduler, 1);
}

inline void resume(Thread& t) {
    Grid& g = grid();
    g.current = &t;
    if (_setjmp(g.scheduler) != 0) return;
    if (t.started) _longjmp(t.place, 1);
    t.started = true;
    getcontext(&t.context);
    t.context.uc_stack = {t.stack, 0, STACK_BYTES};
    t.context.uc_link = nullptr;
    makecontext(&t.context, fiber, 0);
    setcontext(&t.context);
}

inline void run_block(bool backwards) {
    Grid& g = grid();
    // A block begins with memory that nobody has written: NaN in any format.
    memset(g.memory, 0xff, g.memory_size);
    g.at_barrier = 0;
    for (Warp& warp : g.warps) warp.arrived = 0;
    size_t count = g.threads.size(), left = count;
    for (size_t i = 0; i < count; ++i) {
        Thread& t = g.threads[i];
        t.index = {u32(i), 0, 0};
        t.finished = t.started = false;
        t.watched = nullptr;
        t.copies.clear();
        t.commits = 0;
    }
    while (left > 0) {
        bool progress = false;
        for (size_t i = 0; i < count; ++i) {
            Thread& t = g.threads[backwards ? count - 1 - i : i];
            if (t.finished || (t.watched && *t.watched == t.seen)) continue;
            resume(t);
            if (!g.error.empty()) return;
            left -= t.finished;
            progress = true;
        }
        if (!progress) {
            g.error = "threads wait for others that do not come";
            return;
        }
    }
}

// Runs every block, from the last thread of the last block to the first of the first if `backwards`. Returns what went
// wrong, or nothing; the words live until the next call.
inline const char* run_grid(const u32* size, u32 block, size_t memory, bool backwards, const std::function<void()>& body) {
    Grid& g = grid();
    g.error.clear();
    if (block == 0 || block > 1024 || block % WARP != 0) return "a block is not whole warps, or too many";
    if (size[0] == 0 || size[1] == 0 || size[2] == 0) return "a grid has no blocks";
    if (size[1] > 65535 || size[2] > 65535) return "a grid is too large along y or z";
    void* aligned = nullptr;
    if (posix_memalign(&aligned, 128, memory + 128) != 0) return "there is no memory for a block";
    std::unique_ptr<void, void (*)(void*)> owned(aligned, free);
    g.memory = static_cast<u8*>(aligned), g.memory_size = memory;
    g.size = {size[0], size[1], size[2]};
    g.block_size = {block, 1, 1};
    g.body = &body;
    for (size_t i = block; i < g.threads.size(); ++i) munmap(g.threads[i].stack, STACK_BYTES);
    size_t had = std::min<size_t>(g.threads.size(), block);
    g.threads.resize(block);
    g.warps.resize(block / WARP);
    for (size_t i = had; i < block; ++i) {
        void* stack = mmap(nullptr, STACK_BYTES, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        if (stack == MAP_FAILED) abort();
        g.threads[i].stack = stack;
    }
    u64 blocks = u64(size[0]) * size[1] * size[2];
    for (u64 i = 0; i < blocks && g.error.empty(); ++i) {
        u64 at = backwards ? blocks - 1 - i : i;
        g.block_index = {u32(at % size[0]), u32(at / size[0] % size[1]), u32(at / size[0] / size[1])};
        run_block(backwards);
    }
    return g.error.empty() ? nullptr : g.error.c_str();
}

}  // namespace emulated
