//! The benchmark of GPUs where there is none: its parts over small sizes on the emulation, so that what it computes, compares and
//! counts is right before a GPU is there to be timed.

mod cuda {
    #![allow(dead_code)] // each test binary uses a part
    pub mod emulation;
    pub mod graphs;
    pub mod guarded;
    pub mod sources;
}
#[path = "../benches/gpu/suite/mod.rs"]
mod suite;

use std::sync::Arc;
use std::time::Instant;

use coterie_kernels::cuda::device::{Device, DeviceError};
use coterie_kernels::cuda::launch::{Address, Launch};
use coterie_kernels::cuda::timed::{Effort, Time, Timed};
use cuda::emulation::Emulation;
use suite::Suite;
use suite::figure::Figure;
use suite::sizes::Sizes;

/// The emulation with a host's clock. One kernel may be left out.
struct Clocked {
    emulation: Emulation,
    without: Option<&'static str>,
}

impl Clocked {
    fn new(without: Option<&'static str>) -> Arc<Clocked> {
        Arc::new(Clocked { emulation: Emulation::load(false), without })
    }
}

impl Device for Clocked {
    fn free_memory(&self) -> Result<usize, DeviceError> {
        self.emulation.free_memory()
    }
    fn allocate(&self, bytes: usize) -> Result<Address, DeviceError> {
        self.emulation.allocate(bytes)
    }
    unsafe fn free(&self, memory: Address) {
        // SAFETY: the caller's.
        unsafe { self.emulation.free(memory) };
    }
    unsafe fn write(&self, to: Address, from: &[u8]) -> Result<(), DeviceError> {
        // SAFETY: the caller's.
        unsafe { self.emulation.write(to, from) }
    }
    unsafe fn read(&self, from: Address, to: &mut [u8]) -> Result<(), DeviceError> {
        // SAFETY: the caller's.
        unsafe { self.emulation.read(from, to) }
    }
    unsafe fn launch<P>(&self, launch: &Launch<P>) -> Result<(), DeviceError> {
        if self.without == Some(launch.kernel) {
            return Ok(());
        }
        // SAFETY: the caller's.
        unsafe { self.emulation.launch(launch) }
    }
}

impl Timed for Clocked {
    type Mark = Instant;
    unsafe fn copy(&self, from: Address, to: Address, bytes: usize) -> Result<(), DeviceError> {
        let mut copied = vec![0; bytes];
        // SAFETY: the caller's.
        unsafe {
            self.emulation.read(from, &mut copied)?;
            self.emulation.write(to, &copied)
        }
    }
    fn mark(&self) -> Result<Instant, DeviceError> {
        Ok(Instant::now())
    }
    fn seconds(&self, from: &Instant, to: &Instant) -> Result<f64, DeviceError> {
        Ok((*to - *from).as_secs_f64())
    }
}

const ONCE: Effort = Effort { samples: 2, runs: 1, copied: 1 << 16 };

#[test]
fn every_part_measures_and_finds_its_results_right() {
    let mut figures: Vec<Figure> = Vec::new();
    let mut tell = |figure| figures.push(figure);
    let suite = Suite::new(Clocked::new(None), ONCE, Sizes::tiny(), &mut tell);
    let failures = suite.expect("there is memory").run();
    assert!(
        failures.is_empty(),
        "{}",
        failures.iter().map(|(part, why)| format!("{part}: {why}\n")).collect::<String>()
    );
    for figure in &figures {
        assert!(figure.time.seconds > 0.0, "{figure:?}");
        println!("{}", figure.json());
    }
    let of = |op: &str| figures.iter().filter(|figure| figure.op == op).count();
    let (decodes, rows, models, formats) = (2, 3, 2, 6);
    assert_eq!(of("experts"), models * formats * rows);
    assert_eq!([of("gate and up"), of("down")], [models * formats; 2]);
    assert_eq!(of("attention"), 2 * decodes);
    for op in ["norm", "rotary", "activation", "gate"] {
        assert_eq!(of(op), rows, "{op}");
    }
    assert_eq!([of("best token"), of("drawn token"), of("copy"), of("launch")], [decodes, decodes, 1, 2]);
}

#[test]
fn a_kernel_that_writes_nothing_is_an_error_and_no_figure() {
    for (kernel, part, wrong) in
        [("matmul_int4_narrow", "experts", 4), ("attention_merge", "attention", 2), ("add", "bounds", 0)]
    {
        let mut figures: Vec<Figure> = Vec::new();
        let mut tell = |figure| figures.push(figure);
        let sizes = Sizes { experts: Sizes::tiny().experts[..1].to_vec(), decode: vec![1], ..Sizes::tiny() };
        let suite = Suite::new(Clocked::new(Some(kernel)), ONCE, sizes, &mut tell);
        let mut suite = suite.expect("there is memory");
        let failed = match part {
            "experts" => suite.experts(),
            "attention" => suite.attention(),
            _ => suite.bounds(),
        };
        let why = failed.expect_err(kernel).to_string();
        drop(suite);
        println!("{kernel}: {why}");
        let int4 =
            figures.iter().filter(|figure| figure.format.starts_with("int4") && figure.rows < 3).count();
        assert_eq!(int4, 0, "of {kernel} no figure");
        assert!(part != "experts" || !figures.is_empty(), "other kernels have figures");
        assert_eq!(
            why.matches("the kernel computes something else").count(),
            wrong,
            "every wrong result is named: {why}"
        );
    }
}

#[test]
fn bytes_and_operations_are_counted_by_hand() {
    let mut figures: Vec<Figure> = Vec::new();
    let mut tell = |figure| figures.push(figure);
    let sizes = Sizes { experts: Sizes::tiny().experts[..1].to_vec(), decode: vec![1], ..Sizes::tiny() };
    let mut suite = Suite::new(Clocked::new(None), ONCE, sizes, &mut tell).expect("there is memory");
    suite.experts().and_then(|()| suite.attention()).map_err(|why| why.to_string()).expect("no failure");
    drop(suite);
    let find = |op: &str, format: &str, rows: usize| {
        let found = figures.iter().find(|f| (f.op, &*f.format, f.rows) == (op, format, rows));
        let found = found.unwrap_or_else(|| panic!("{op} {format} {rows}"));
        [found.bytes, found.flop]
    };
    // One token, two experts of three matrices of 128 × 256; a row in, two rows between out and in, two rows out.
    let (weights, rows) = (2 * 3 * 128 * 256, 128 * 2 + 2 * 2 * 256 * 2 + 2 * 128 * 4);
    assert_eq!(find("experts", "bf16", 1), [2 * weights + rows, 2 * weights]);
    assert_eq!(find("experts", "int8", 1), [weights + weights / 64 * 4 + rows, 2 * weights]);
    assert_eq!(find("experts", "mxfp4", 1), [weights / 2 + weights / 32 + rows, 2 * weights]);
    assert_eq!(find("experts", "fp8", 1), [weights + weights / 128 / 128 * 4 + rows, 2 * weights]);
    // 300 keys and values of 2 heads of 128; 4 heads of a query, and of its answer.
    assert_eq!(find("attention", "bf16", 1), [300 * 2 * 2 * 128 * 2 + 4 * 256 * 4, 2 * 4 * 300 * 256]);
}

#[test]
fn a_figure_is_a_line_of_json() {
    let figure = Figure {
        op: "experts",
        of: "a \"model\"".to_owned(),
        format: "bf16".to_owned(),
        rows: 4,
        time: Time { seconds: 1.5e-5, noise: 0.01 },
        bytes: 100,
        flop: 200,
        error: Some(1e-3),
        note: "two\nlines".to_owned(),
    };
    assert_eq!(
        figure.json(),
        r#"{"by":"coterie","op":"experts","of":"a \"model\"","format":"bf16","rows":4,"seconds":1.5e-5,"noise":0.0100,"bytes":100,"flop":200,"error":1e-3,"note":"two\u000alines"}"#
    );
}
