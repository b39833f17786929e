// Kernels that each do what a GPU does not allow, or leaves open.
#include "device.cuh"

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
