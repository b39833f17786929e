//! Every kernel compiles for every architecture, and none keeps its registers in memory. Prints what each takes, and writes
//! the machine code to the folder COTERIE_CUBINS, if that is set.

mod cuda {
    pub mod nvrtc;
    pub mod sources;
}

use std::fs;
use std::path::PathBuf;

use coterie_kernels::cuda::driver::ARCHITECTURES;
use coterie_kernels::cuda::{KERNELS, compiled_for};
use cuda::nvrtc::Nvrtc;
use cuda::sources;

/// What the assembler says of one kernel.
#[derive(Debug, Default, PartialEq)]
struct Used {
    kernel: String,
    registers: u32,
    spilled: u32,
}

/// Reads the assembler's lines: a kernel's name, its stack and spills, then its registers and memory.
fn used(log: &str) -> Vec<Used> {
    let mut all = Vec::new();
    let mut kernel = Used::default();
    let before = |line: &str, what: &str| {
        let number = line.split(what).next().filter(|_| line.contains(what))?;
        number.trim_end().rsplit(' ').next()?.parse::<u32>().ok()
    };
    for line in log.lines() {
        if let Some((_, name)) = line.split_once("Compiling entry function '") {
            kernel = Used { kernel: name.split('\'').next().unwrap_or(name).into(), ..Used::default() };
        }
        for what in ["bytes stack frame", "bytes spill stores", "bytes spill loads"] {
            kernel.spilled += before(line, what).unwrap_or(0);
        }
        if let Some(registers) = before(line, "registers") {
            kernel.registers = registers;
            all.push(std::mem::take(&mut kernel));
        }
    }
    all
}

#[test]
fn the_assemblers_words_are_read() {
    let log = "ptxas info    : 0 bytes gmem\n\
               ptxas info    : Compiling entry function 'norm' for 'sm_80'\n\
               ptxas info    : Function properties for norm\n\
               \x20   16 bytes stack frame, 4 bytes spill stores, 8 bytes spill loads\n\
               ptxas info    : Used 30 registers, used 1 barriers, 32 bytes smem, 360 bytes cmem[0]\n";
    assert_eq!(used(log), [Used { kernel: "norm".into(), registers: 30, spilled: 28 }]);
}

#[test]
fn every_kernel_is_listed_by_its_source() {
    let sources = sources::all();
    let listed = KERNELS.iter().map(|(source, kernels)| (*source, kernels.to_vec()));
    let names: Vec<Vec<String>> = sources.iter().map(|source| sources::kernels(source)).collect();
    let found = sources.iter().zip(&names).map(|(source, kernels)| {
        let stem = source.file_stem().and_then(|name| name.to_str()).expect("a source has a name");
        (stem, kernels.iter().map(String::as_str).collect())
    });
    assert_eq!(listed.collect::<Vec<_>>(), found.collect::<Vec<(&str, Vec<&str>)>>());
}

#[test]
#[ignore = "needs COTERIE_NVRTC, the path of libnvrtc.so.13, which cargo xtask test sets"]
fn every_kernel_compiles_for_every_architecture() {
    let path = std::env::var_os("COTERIE_NVRTC").expect("COTERIE_NVRTC is the path of libnvrtc.so.13");
    let nvrtc = Nvrtc::load(path.as_ref());
    let out = std::env::var_os("COTERIE_CUBINS").map(PathBuf::from);
    let mut spilled = Vec::new();
    println!("registers of a thread for {}", ARCHITECTURES.join(", "));
    for source in sources::all() {
        let name = source.file_stem().and_then(|name| name.to_str()).expect("a source has a name");
        let mut wanted = sources::kernels(&source);
        wanted.sort();
        let of_architecture = ARCHITECTURES.map(|architecture| {
            if !compiled_for(name, architecture) {
                return Vec::new();
            }
            let cubin = nvrtc.compile(&source, architecture).unwrap_or_else(|log| panic!("{log}"));
            assert!(cubin.bytes.starts_with(b"\x7fELF"), "{name} for {architecture} is machine code");
            if let Some(folder) = &out {
                let folder = folder.join(architecture);
                fs::create_dir_all(&folder).expect("COTERIE_CUBINS can be written");
                fs::write(folder.join(name).with_extension("cubin"), &cubin.bytes)
                    .expect("a cubin can be written");
            }
            // The assembler says so where products of warpgroups wait for each other.
            assert!(!cubin.log.contains("serialized"), "{name} for {architecture}:\n{}", cubin.log);
            let mut kernels = used(&cubin.log);
            kernels.sort_by(|a, b| a.kernel.cmp(&b.kernel));
            assert!(
                kernels.iter().map(|used| &used.kernel).eq(&wanted),
                "every kernel is in the log:\n{}",
                cubin.log
            );
            kernels
        });
        for (at, kernel) in wanted.iter().enumerate() {
            let same = of_architecture.each_ref().map(|kernels| kernels.get(at));
            let registers = same
                .map(|used| used.map_or("   -".to_owned(), |used| format!("{:>4}", used.registers)))
                .concat();
            println!("{name:<10} {kernel:<36} {registers}");
            for (used, architecture) in same.iter().zip(ARCHITECTURES) {
                let Some(used) = used else { continue };
                if used.spilled > 0 {
                    spilled.push(format!("{kernel} for {architecture}: {} bytes", used.spilled));
                }
            }
        }
    }
    assert!(spilled.is_empty(), "kernels keep registers in memory:\n{}", spilled.join("\n"));
}
