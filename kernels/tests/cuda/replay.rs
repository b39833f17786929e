//! Launches that are recorded once and repeated: on other values in the same places, in their order.

use std::sync::Arc;

use coterie_kernels::cuda::device::{Device, DeviceError, Graph, Memory};
use coterie_kernels::cuda::elements::{Elements, Op};

use super::emulation::Emulation;

/// Values of a buffer.
const COUNT: usize = 300;

fn filled<D: Device>(device: &Arc<D>, value: f32) -> Memory<D> {
    let memory = Memory::new(device, COUNT * size_of::<f32>()).expect("there is memory");
    memory.write(0, bytes(&[value; COUNT])).expect("it can be written");
    memory
}

fn bytes(values: &[f32]) -> &[u8] {
    // SAFETY: numbers, seen as bytes.
    unsafe { std::slice::from_raw_parts(values.as_ptr().cast(), size_of_val(values)) }
}

fn read<D: Device>(memory: &Memory<D>) -> Vec<f32> {
    let mut bytes = vec![0; COUNT * size_of::<f32>()];
    memory.read(0, &mut bytes).expect("it can be read");
    bytes.chunks_exact(4).map(|four| f32::from_le_bytes([four[0], four[1], four[2], four[3]])).collect()
}

/// out = a + b, then out += out.
fn launches<D: Device>(device: &D, [a, b, out]: [&Memory<D>; 3]) -> Result<(), DeviceError> {
    let [a, b, out] = [a, b, out].map(Memory::address);
    let add = |a, b| Elements { a, b, out, count: COUNT as u64, width: 0, alpha: 0.0, beta: 0.0 };
    [add(a, b), add(out, out)].iter().try_for_each(|add| {
        // SAFETY: the caller's buffers have as many values, and outlive the graph.
        unsafe { device.launch(&add.launch(Op::Add)) }
    })
}

pub fn repeats_what_was_recorded<D: Device>(device: &Arc<D>) {
    let [a, b, out] = [1.0, 2.0, 7.0].map(|value| filled(device, value));
    let record = |of| {
        let record = || launches(&**device, of).expect("launches can be recorded");
        Graph::record(device, record).expect("there is a graph")
    };
    let graph = record([&a, &b, &out]);
    assert_eq!(read(&out), [7.0; COUNT], "what is recorded does not run");
    for value in [3.0, -5.0] {
        a.write(0, bytes(&[value; COUNT])).expect("it can be written");
        // SAFETY: the buffers are there.
        unsafe { graph.replay() }.expect("a graph can be replayed");
        assert_eq!(read(&out), [2.0 * (value + 2.0); COUNT]);
    }
    // Beside launches as they come, another graph, and after one is gone.
    let other = record([&b, &b, &out]);
    drop(graph);
    launches(&**device, [&a, &a, &out]).expect("launches can run");
    assert_eq!(read(&out), [-20.0; COUNT]);
    // SAFETY: the same.
    unsafe { other.replay() }.expect("a graph can be replayed");
    assert_eq!(read(&out), [8.0; COUNT]);
}

/// What a GPU refuses in the midst of a capture, or would take as it comes and use after it is gone.
pub fn strict_in_emulation() {
    let device = Arc::new(Emulation::load(false));
    let buffer = filled(&device, 1.0);
    let mut asked = Vec::new();
    let graph = Graph::record(&device, || {
        asked.push(buffer.write(0, &[0; 4]));
        asked.push(buffer.read(0, &mut [0; 4]));
        asked.push(Memory::new(&device, 4).map(|_| ()));
        asked.push(device.begin_capture());
    });
    drop(graph);
    assert!(asked.iter().all(Result::is_err), "{asked:?}");
    assert_eq!(read(&buffer), [1.0; COUNT]);

    let out = filled(&device, 0.0);
    let graph = Graph::record(&device, || launches(&*device, [&buffer, &buffer, &out]).expect("launches"));
    let freed = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| drop(out)));
    assert!(freed.is_err(), "memory of a graph is freed");
    drop(graph);
    drop(buffer);
}
