// Kernels that each do what a GPU does not allow, or leaves open.
#include "device.cuh"
#include "wgmma.cuh"

struct Fault {
    float* out;
    const float* x;
};

KERNEL(reads_before_others_wrote, 64, Fault) {
    float* s = shared<float[64]>();
    s[threadIdx.x] = float(threadIdx.x);
    p.out[threadIdx.x] = s[63 - threadIdx.x];
}
KERNEL(does_not_wait_for_a_copy, 32, Fault) {
    float* s = shared<float[4]>();
    copy_async(s, p.x, true);
    copies_commit();
    p.out[threadIdx.x] = s[0];
}
KERNEL(waits_for_a_copy, 32, Fault) {
    float* s = shared<float[4 * WARP]>() + 4 * threadIdx.x;
    copy_async(s, p.x, true);
    copies_commit();
    copies_wait<0>();
    p.out[threadIdx.x] = s[0];
}
KERNEL(loads_across, 32, Fault) { p.out[0] = load<Four>(p.x + 1).values[0]; }
KERNEL(loses_lanes, 32, Fault) {
    if (threadIdx.x < 16) p.out[0] = shuffle(1.0f, 0);
}
KERNEL(parts_lanes, 32, Fault) {
    if (threadIdx.x < 16) p.out[0] = shuffle(1.0f, 0);
    else ballot(true);
}
KERNEL(loses_threads, 64, Fault) {
    if (threadIdx.x < 32) return;
    block_sync();
}
KERNEL(has_little_memory, 32, Fault) { p.out[0] = shared<float[1000]>()[0]; }

// A product of 64 rows with 32 columns, both of ones, which the block's threads have put into shared memory.
struct Ones {
    u8 left[64 * SWIZZLED_ROW], right[32 * SWIZZLED_ROW];
};
static __device__ Ones& ones(bool seen) {
    Ones& s = swizzled_shared<Ones>();
    for (u32 i = threadIdx.x; i < sizeof(Ones) / 4; i += WARPGROUP) store(s.left + 4 * i, 0x3f803f80u);
    if (seen) shared_for_products();
    block_sync();
    return s;
}
static __device__ void start(const Ones& s, float (&sums)[16]) {
    multiply(sums, operand_at(shared_address(s.left)), operand_at(shared_address(s.right)), false);
}
KERNEL(multiplies, 128, Fault) {
    float sums[16] = {};
    Ones& s = ones(true);
    products_begin();
    start(s, sums);
    products_commit();
    products_wait<0>();
    if (threadIdx.x < 64) p.out[threadIdx.x] = sums[threadIdx.x % 16];
}
KERNEL(hides_what_it_wrote, 128, Fault) {
    float sums[16];
    Ones& s = ones(false);
    products_begin();
    start(s, sums);
    products_commit();
    products_wait<0>();
}
KERNEL(does_not_begin, 128, Fault) {
    float sums[16];
    start(ones(true), sums);
    products_commit();
    products_wait<0>();
}
KERNEL(reads_sums_at_once, 128, Fault) {
    float sums[16];
    Ones& s = ones(true);
    products_begin();
    start(s, sums);
    products_commit();
    if (threadIdx.x < 64) p.out[threadIdx.x] = sums[0];
    products_wait<0>();
}
KERNEL(changes_sums, 128, Fault) {
    float sums[16];
    Ones& s = ones(true);
    products_begin();
    start(s, sums);
    products_commit();
    sums[3] = 0.0f;
    products_wait<0>();
}
KERNEL(changes_registers, 128, Fault) {
    float sums[16];
    u32 a[4] = {0, 0, 0, 0};
    Ones& s = ones(true);
    products_begin();
    multiply(sums, a, operand_at(shared_address(s.right)), false);
    products_commit();
    a[threadIdx.x % 4] = 1;
    products_wait<0>();
}
KERNEL(starts_others, 128, Fault) {
    float sums[16];
    Ones& s = ones(true);
    products_begin();
    multiply(sums, operand_at(shared_address(s.left)), operand_at(shared_address(s.right)), threadIdx.x < 32);
    products_commit();
    products_wait<0>();
}
KERNEL(does_not_wait_for_products, 128, Fault) {
    float sums[16];
    Ones& s = ones(true);
    products_begin();
    start(s, sums);
    products_commit();
}
KERNEL(multiplies_elsewhere, 128, Fault) {
    float sums[16];
    Ones& s = ones(true);
    products_begin();
    multiply(sums, operand_at(shared_address(s.left)), operand_at(shared_address(s.right) + 16 * SWIZZLED_ROW), false);
    products_commit();
    products_wait<0>();
}
