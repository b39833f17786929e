//! Speed of the CUDA kernels on this machine's first GPU: `COTERIE_CUBINS=FOLDER cargo bench -p coterie-kernels --bench gpu`.
//! A line of JSON a figure on stdout: what, seconds, bytes and operations counted from the sizes. `cargo xtask gpu` makes a
//! report of them.

mod suite;

use std::process::ExitCode;
use std::sync::Arc;

use coterie_kernels::cuda::device::Device;
use coterie_kernels::cuda::driver::Driver;
use coterie_kernels::cuda::timed::Effort;
use suite::figure::quoted;
use suite::sizes::Sizes;
use suite::{Failure, Suite};

fn main() -> ExitCode {
    // cargo bench hands its own flags on.
    if std::env::args().any(|arg| arg == "--list") {
        return ExitCode::SUCCESS;
    }
    match run() {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(why) => {
            eprintln!("no GPU can be measured: {why}");
            ExitCode::FAILURE
        }
    }
}

/// Whether every figure was measured.
fn run() -> Result<bool, String> {
    let cubins = std::env::var_os("COTERIE_CUBINS");
    let cubins = cubins.ok_or("COTERIE_CUBINS is not set to the folder that the test cubins writes")?;
    let driver = Arc::new(Driver::open(cubins.as_ref()).map_err(|why| why.to_string())?);
    let about = driver.about().map_err(|why| why.to_string())?;
    println!(
        r#"{{"by":"coterie","op":"gpu","of":{},"architecture":{},"multiprocessors":{},"l2_bytes":{},"memory_bytes":{},"cuda":"{}.{}"}}"#,
        quoted(&about.name),
        quoted(driver.architecture()),
        about.multiprocessors,
        about.l2_bytes,
        about.memory_bytes,
        about.cuda[0],
        about.cuda[1],
    );
    let free = driver.free_memory().map_err(|why| why.to_string())?;
    let mut tell = |figure: suite::figure::Figure| println!("{}", figure.json());
    let suite = Suite::new(driver, Effort::FULL, Sizes::full(free, about.l2_bytes), &mut tell);
    let failures = suite.map_err(|why| Failure::Device(why).to_string())?.run();
    for (part, why) in &failures {
        println!(
            r#"{{"by":"coterie","op":"failure","of":{},"why":{}}}"#,
            quoted(part),
            quoted(&why.to_string())
        );
        eprintln!("{part}: {why}");
    }
    Ok(failures.is_empty())
}
