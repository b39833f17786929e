//! Speed of every kernel on a device beside what the device can do, measured in the same run. What is timed is also compared
//! with a reference at some places: a fast wrong answer is an error, not a figure.

pub mod attention;
pub mod bounds;
pub mod experts;
pub mod figure;
pub mod pool;
pub mod random;
pub mod rows;
pub mod sizes;

use std::sync::Arc;

use coterie_kernels::cuda::device::{DeviceError, Memory};
use coterie_kernels::cuda::launch::Launch;
use coterie_kernels::cuda::timed::{Effort, Stopwatch, Timed};

use figure::Figure;
use sizes::Sizes;

/// Why there is no figure.
#[derive(Debug)]
pub enum Failure {
    Device(DeviceError),
    /// What was computed is wrong.
    Wrong(String),
}

impl From<DeviceError> for Failure {
    fn from(error: DeviceError) -> Failure {
        Failure::Device(error)
    }
}

impl std::fmt::Display for Failure {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Failure::Device(error) => write!(f, "{error}"),
            Failure::Wrong(what) => f.write_str(what),
        }
    }
}

/// What a part has computed wrong so far: one wrong kernel hides neither the figures of the others nor that they are wrong, too.
#[derive(Default)]
pub struct Wrong(Vec<String>);

impl Wrong {
    /// Goes on behind a wrong result, but not behind a device that failed.
    pub fn note(&mut self, done: Result<(), Failure>) -> Result<(), Failure> {
        match done {
            Err(Failure::Wrong(what)) => self.0.push(what),
            other => other?,
        }
        Ok(())
    }

    /// All of it, if there is any.
    pub fn failure(self) -> Result<(), Failure> {
        if self.0.is_empty() { Ok(()) } else { Err(Failure::Wrong(self.0.join("; "))) }
    }
}

/// What every part of the suite works with.
pub struct Suite<'a, D: Timed> {
    pub device: Arc<D>,
    pub watch: Stopwatch<D>,
    pub sizes: Sizes,
    /// Who is told each figure.
    pub tell: &'a mut dyn FnMut(Figure),
}

impl<'a, D: Timed> Suite<'a, D> {
    pub fn new(
        device: Arc<D>,
        effort: Effort,
        sizes: Sizes,
        tell: &'a mut dyn FnMut(Figure),
    ) -> Result<Self, DeviceError> {
        let watch = Stopwatch::new(&device, effort)?;
        Ok(Suite { device, watch, sizes, tell })
    }

    /// Everything, what matters most first: whoever stops this early has that.
    pub fn run(&mut self) -> Vec<(&'static str, Failure)> {
        type Part<'a, D> = fn(&mut Suite<'a, D>) -> Result<(), Failure>;
        let parts: [(&str, Part<'a, D>); 4] = [
            ("bounds", Suite::bounds),
            ("attention", Suite::attention),
            ("experts", Suite::experts),
            ("rows", Suite::rows),
        ];
        let ran = parts.map(|(name, part)| part(self).err().map(|failure| (name, failure)));
        ran.into_iter().flatten().collect()
    }

    /// Starts a kernel.
    pub fn launch<P>(&self, launch: &Launch<P>) -> Result<(), DeviceError> {
        // SAFETY: every part keeps what it names in a launch until it has read what that has written.
        unsafe { self.device.launch(launch) }
    }

    /// A copy of numbers.
    pub fn memory<T: Copy>(&self, values: &[T]) -> Result<Memory<D>, DeviceError> {
        let memory = Memory::new(&self.device, size_of_val(values))?;
        // SAFETY: numbers without padding.
        let bytes = unsafe { std::slice::from_raw_parts(values.as_ptr().cast(), size_of_val(values)) };
        memory.write(0, bytes)?;
        Ok(memory)
    }

    /// Memory of NaN.
    pub fn unwritten(&self, bytes: usize) -> Result<Memory<D>, DeviceError> {
        let memory = Memory::new(&self.device, bytes)?;
        pool::poison(&*self.device, &memory)?;
        Ok(memory)
    }
}

/// The bytes of memory from `at` on.
pub fn read<D: Timed, const N: usize, T>(
    memory: &Memory<D>,
    at: usize,
    count: usize,
    from: fn([u8; N]) -> T,
) -> Result<Vec<T>, DeviceError> {
    let mut bytes = vec![0; count * N];
    memory.read(at, &mut bytes)?;
    Ok(bytes.as_chunks::<N>().0.iter().map(|bytes| from(*bytes)).collect())
}

/// ‖got − exact‖ / ‖exact‖, if it is within `most`.
pub fn within(what: &str, got: &[f64], exact: &[f64], most: f64) -> Result<Option<f64>, Failure> {
    let norm = |values: &mut dyn Iterator<Item = f64>| values.map(|x| x * x).sum::<f64>().sqrt();
    let apart = norm(&mut got.iter().zip(exact).map(|(a, b)| a - b));
    let error = apart / norm(&mut exact.iter().copied()).max(1e-300);
    if got.len() == exact.len() && error <= most {
        Ok(Some(error))
    } else {
        Err(Failure::Wrong(format!(
            "{what}: the error is {error:.1e}, more than {most:.0e}: the kernel computes something else"
        )))
    }
}
