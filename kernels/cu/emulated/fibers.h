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
    u32 bytes, commit;
};

// What the lanes of a warp, or the threads of a warpgroup, do together.
template <u32 SIZE>
struct Team {
    const char* what;
    u32 arrived, turn;
    void* operands[SIZE];
};

// A warpgroup's product that was started (emulated/wgmma.h), as one of its threads knows it.
struct Started {
    float* sums;
    u32 columns;
    bool add;
    // Descriptors; the left operand's, or where its registers are and what they were.
    u64 left, right;
    const u32* registers;
    u32 were[4];
    u32 commit;
};

// Sums that products are under way into, and what they are without those.
struct Sums {
    float* at;
    std::vector<float> values;
    u32 under_way;
};

struct Thread {
    Index index;
    bool finished, started;
    // Waits while *watched is `seen`.
    const u32* watched;
    u32 seen;
    std::vector<Copy> copies;
    u32 commits;
    // Words of shared memory that it wrote, and products do not see yet.
    std::vector<u32> unseen;
    std::vector<Started> products;
    std::vector<Sums> sums;
    u32 products_commits;
    bool products_begun;
    jmp_buf place;
    ucontext_t context;
    void* stack;
};

struct Grid {
    Index block_index, block_size, size;
    u8* memory;
    size_t memory_size;
    std::vector<Thread> threads;
    std::vector<Team<32>> warps;
    std::vector<Team<128>> warpgroups;
    // Of each word of shared memory, whether products do not see what was written to it.
    std::vector<bool> unseen;
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

// Waits until all of the team are here; the last one does the work on everybody's operands.
template <u32 SIZE, class Work>
void meet(std::vector<Team<SIZE>>& teams, const char* what, void* operand, Work work) {
    u32 index = thread().index.x;
    require(index / SIZE < teams.size(), "a block is not whole warpgroups");
    Team<SIZE>& team = teams[index / SIZE];
    if (team.arrived == 0) team.what = what;
    if (strcmp(team.what, what) != 0) fail(std::string("lanes of a warp are in ") + team.what + " and " + what);
    team.operands[index % SIZE] = operand;
    u32 turn = team.turn;
    if (++team.arrived == SIZE) {
        work(team.operands);
        team.arrived = 0;
        ++team.turn;
    } else {
        wait(team.turn, turn);
    }
}
template <class Work>
void meet(const char* what, void* operand, Work work) {
    meet(grid().warps, what, operand, work);
}

// The thread wrote this, as threads do: products do not see it before they are told to.
inline void written(const void* to, size_t bytes) {
    Grid& g = grid();
    size_t at = static_cast<const u8*>(to) - g.memory;
    if (static_cast<const u8*>(to) < g.memory || at >= g.memory_size) return;
    for (size_t word = at / 4; word < (at + bytes + 3) / 4; ++word) {
        g.unseen[word] = true;
        thread().unseen.push_back(u32(word));
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
    require(thread().products.empty(), "a thread ends while its products are under way");
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
    for (auto& warp : g.warps) warp.arrived = 0;
    for (auto& warpgroup : g.warpgroups) warpgroup.arrived = 0;
    g.unseen.assign(g.memory_size / 4 + 1, false);
    size_t count = g.threads.size(), left = count;
    for (size_t i = 0; i < count; ++i) {
        Thread& t = g.threads[i];
        t.index = {u32(i), 0, 0};
        t.finished = t.started = false;
        t.watched = nullptr;
        t.copies.clear();
        t.commits = 0;
        t.unseen.clear();
        t.products.clear();
        t.sums.clear();
        t.products_commits = 0;
        t.products_begun = false;
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
    if (posix_memalign(&aligned, 1024, memory + 1024) != 0) return "there is no memory for a block";
    std::unique_ptr<void, void (*)(void*)> owned(aligned, free);
    g.memory = static_cast<u8*>(aligned), g.memory_size = memory;
    g.size = {size[0], size[1], size[2]};
    g.block_size = {block, 1, 1};
    g.body = &body;
    for (size_t i = block; i < g.threads.size(); ++i) munmap(g.threads[i].stack, STACK_BYTES);
    size_t had = std::min<size_t>(g.threads.size(), block);
    g.threads.resize(block);
    g.warps.resize(block / WARP);
    g.warpgroups.resize(block / 128);
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
