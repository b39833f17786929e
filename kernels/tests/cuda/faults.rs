//! What the emulation notices.

use std::path::Path;

use coterie_kernels::cuda::launch::{Address, Launch};

use super::device::unwritten;
use super::emulation::Emulation;
use super::memory::Memory;

#[derive(Clone, Copy)]
#[repr(C)]
struct Fault {
    out: Address,
    x: Address,
}

/// What a kernel writes, or what went wrong.
fn run(device: &Emulation, kernel: &'static str, block: u32) -> Result<Vec<f32>, String> {
    let (out, x) = (unwritten(64), Memory::of(&[5f32; 8]));
    let parameters = Fault { out: out.address(), x: x.address() };
    // As much as the kernels have at most.
    let shared = if block == 128 { 96 * 128 } else { 512 };
    let launch = Launch { kernel, grid: [1; 3], block, shared, parameters };
    device.run(&launch).map(|()| out.values())
}

pub fn of_kernels_are_noticed() {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/cuda/faults.cu");
    let devices = [false, true].map(|backwards| Emulation::of(vec![source.clone()], backwards));
    let [device, backwards] = &devices;
    let result = |kernel| run(device, kernel, 32).expect("nothing is wrong");
    let wrong = |kernel, block| run(device, kernel, block).expect_err("something is wrong");

    let orders = devices.each_ref().map(|device| run(device, "reads_before_others_wrote", 64));
    assert_ne!(
        orders[0].as_ref().map(|out| out[0].to_bits()),
        orders[1].as_ref().map(|out| out[0].to_bits())
    );
    assert!(result("does_not_wait_for_a_copy")[0].is_nan());
    assert_eq!(result("waits_for_a_copy")[31], 5.0);
    assert!(wrong("loads_across", 32).contains("not aligned"));
    assert!(wrong("loses_lanes", 32).contains("do not come"));
    assert!(wrong("parts_lanes", 32).contains("in shuffle and ballot"));
    assert!(wrong("loses_threads", 64).contains("do not come"));
    assert!(wrong("has_little_memory", 32).contains("too little shared memory"));
    assert!(wrong("loads_across", 64).contains("not made for so many threads"));
    let multiplied = run(device, "multiplies", 128).expect("nothing is wrong");
    assert!(multiplied.iter().all(|sum| *sum == 16.0), "{multiplied:?}");
    let early = run(device, "reads_sums_at_once", 128).expect("it shows in the result");
    assert!(early.iter().all(|sum| sum.is_nan()), "{early:?}");
    for (kernel, why) in [
        ("hides_what_it_wrote", "without shared_for_products"),
        ("does_not_begin", "without products_begin"),
        ("changes_sums", "sums are touched"),
        ("changes_registers", "registers change"),
        ("starts_others", "start different products"),
        ("does_not_wait_for_products", "ends while its products are under way"),
        ("multiplies_elsewhere", "not within shared memory"),
    ] {
        let wrong = wrong(kernel, 128);
        assert!(wrong.contains(why), "{kernel}: {wrong}");
    }
    assert!(run(backwards, "waits_for_a_copy", 32).is_ok(), "a fault leaves nothing behind");
}
