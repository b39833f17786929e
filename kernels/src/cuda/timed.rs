//! How long kernels take, by a device's own clock.

use std::sync::Arc;

use super::device::{Device, DeviceError, Memory};
use super::launch::Address;

/// A device that tells when it got where.
pub trait Timed: Device {
    /// A place in the order of what it was asked for.
    type Mark;

    /// Copies within its memory.
    ///
    /// # Safety
    /// `from` and `to` have as many bytes, and are apart.
    unsafe fn copy(&self, from: Address, to: Address, bytes: usize) -> Result<(), DeviceError>;

    /// Asks it to note the time when all is done that it was asked for before.
    fn mark(&self) -> Result<Self::Mark, DeviceError>;

    /// Seconds from one mark to a later one, when the later one is reached.
    fn seconds(&self, from: &Self::Mark, to: &Self::Mark) -> Result<f64, DeviceError>;
}

/// How much is measured.
#[derive(Clone, Copy, Debug)]
pub struct Effort {
    /// Figures of which the median is taken, half of them in each of two rounds.
    pub samples: usize,
    /// Runs of a sample at most; short ones are repeated until a sample lasts about a millisecond.
    pub runs: usize,
    /// Bytes that are copied before every sample, so that its launches wait for the device and not the device for them.
    pub copied: usize,
}

impl Effort {
    /// For a GPU.
    pub const FULL: Effort = Effort { samples: 22, runs: 64, copied: 256 << 20 };
}

/// What a run takes.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Time {
    /// Median.
    pub seconds: f64,
    /// How far the medians of two rounds of the same are apart, as a share of it: what is less is noise.
    pub noise: f64,
}

/// Seconds for which a sample lasts at least, if `runs` allow.
const SAMPLE: f64 = 1e-3;
/// Seconds for which a launch keeps this process busy; generous.
const LAUNCH: f64 = 8e-6;

/// Measures a device.
pub struct Stopwatch<D: Timed> {
    device: Arc<D>,
    effort: Effort,
    /// Two halves, one of which is copied to the other.
    scratch: Memory<D>,
    /// Seconds that this takes.
    copy: f64,
}

impl<D: Timed> Stopwatch<D> {
    /// Takes memory for its copies, and measures how long one takes.
    pub fn new(device: &Arc<D>, effort: Effort) -> Result<Stopwatch<D>, DeviceError> {
        let scratch = Memory::new(device, 2 * effort.copied)?;
        let mut all = Stopwatch { device: device.clone(), effort, scratch, copy: 0.0 };
        all.fill()?;
        for _ in 0..3 {
            let from = device.mark()?;
            all.copy()?;
            all.copy = device.seconds(&from, &device.mark()?)?;
        }
        Ok(all)
    }

    /// Bytes that are not all the same.
    fn fill(&self) -> Result<(), DeviceError> {
        let bytes: Vec<u8> = (0..1 << 16).map(|i: u32| (i.wrapping_mul(0x9e37_79b9) >> 24) as u8).collect();
        (0..self.scratch.bytes()).step_by(bytes.len()).try_for_each(|at| {
            let length = bytes.len().min(self.scratch.bytes() - at);
            self.scratch.write(at, &bytes[..length])
        })
    }

    fn copy(&self) -> Result<(), DeviceError> {
        let (from, half) = (self.scratch.address(), self.effort.copied);
        // SAFETY: two halves.
        unsafe { self.device.copy(from, from + half as Address, half) }
    }

    /// Bytes read and written a second by copies of `effort.copied` bytes, and what that took.
    pub fn bandwidth(&self) -> Result<(Time, usize), DeviceError> {
        Ok((self.time(1, |_| self.copy())?, 2 * self.effort.copied))
    }

    /// What `work` takes, which makes `launches` launches and is told how often it ran before.
    pub fn time(
        &self,
        launches: usize,
        mut work: impl FnMut(usize) -> Result<(), DeviceError>,
    ) -> Result<Time, DeviceError> {
        let mut ran = 0;
        let mut sample = |runs: usize, behind_copies: bool| {
            if behind_copies {
                let busy = (runs * launches) as f64 * LAUNCH;
                let copies = (busy / self.copy.max(1e-6)).ceil() as usize;
                // A clock that stands still would ask for any number of them.
                (0..copies.clamp(1, 64)).try_for_each(|_| self.copy())?;
            }
            let from = self.device.mark()?;
            for _ in 0..runs {
                work(ran)?;
                ran += 1;
            }
            let to = self.device.mark()?;
            Ok::<f64, DeviceError>(self.device.seconds(&from, &to)? / runs as f64)
        };
        // To warm up, and to see how long it is.
        sample(1, false)?;
        let once = sample(self.effort.runs.min(3), true)?;
        let runs = ((SAMPLE / once.max(1e-9)).ceil() as usize).clamp(1, self.effort.runs);
        let mut rounds = [Vec::new(), Vec::new()];
        for i in 0..self.effort.samples.max(2) {
            rounds[i % 2].push(sample(runs, true)?);
        }
        let [first, second] = rounds.each_ref().map(|round| median(round));
        let seconds = median(&rounds.concat());
        Ok(Time { seconds, noise: (first - second).abs() / seconds.max(1e-12) })
    }
}

/// The middle one, or the mean of both in the middle.
fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let (a, b) = ((sorted.len().max(1) - 1) / 2, sorted.len() / 2);
    if sorted.is_empty() { 0.0 } else { (sorted[a] + sorted[b]) / 2.0 }
}

/// A device without memory whose clock a test sets.
#[cfg(test)]
pub(super) mod clock {
    use std::sync::Mutex;

    use super::{Address, Device, DeviceError, Timed};
    use crate::cuda::launch::Launch;

    /// A copy takes a millisecond, a launch as long as is told of its kernel and its blocks.
    pub(in crate::cuda) struct Clock {
        now: Mutex<f64>,
        takes: fn(&str, u32) -> f64,
    }

    impl Clock {
        pub(in crate::cuda) fn new(takes: fn(&str, u32) -> f64) -> Clock {
            Clock { now: Mutex::new(0.0), takes }
        }

        fn pass(&self, seconds: f64) {
            *self.now.lock().expect("nobody fails") += seconds;
        }
    }

    impl Device for Clock {
        fn free_memory(&self) -> Result<usize, DeviceError> {
            Ok(0)
        }
        fn allocate(&self, _: usize) -> Result<Address, DeviceError> {
            Ok(16)
        }
        unsafe fn free(&self, _: Address) {}
        unsafe fn write(&self, _: Address, _: &[u8]) -> Result<(), DeviceError> {
            Ok(())
        }
        unsafe fn read(&self, _: Address, _: &mut [u8]) -> Result<(), DeviceError> {
            Ok(())
        }
        unsafe fn launch<P>(&self, launch: &Launch<P>) -> Result<(), DeviceError> {
            self.pass((self.takes)(launch.kernel, launch.grid.iter().product()));
            Ok(())
        }
    }

    impl Timed for Clock {
        type Mark = f64;
        unsafe fn copy(&self, _: Address, _: Address, _: usize) -> Result<(), DeviceError> {
            self.pass(1e-3);
            Ok(())
        }
        fn mark(&self) -> Result<f64, DeviceError> {
            Ok(*self.now.lock().expect("nobody fails"))
        }
        fn seconds(&self, from: &f64, to: &f64) -> Result<f64, DeviceError> {
            Ok(to - from)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::clock::Clock;
    use super::*;
    use crate::cuda::launch::Launch;

    #[test]
    fn a_run_takes_what_its_launches_take_without_the_copies_before_them() {
        let device = Arc::new(Clock::new(|_, blocks| f64::from(blocks) * 1e-6));
        let watch = Stopwatch::new(&device, Effort { samples: 6, runs: 32, copied: 64 }).expect("no failure");
        let kernel =
            |blocks| Launch { kernel: "k", grid: [blocks, 1, 1], block: 32, shared: 0, parameters: () };
        let mut numbers = Vec::new();
        let time = watch.time(2, |number| {
            numbers.push(number);
            // SAFETY: nothing runs.
            unsafe { device.launch(&kernel(2)).and_then(|()| device.launch(&kernel(5))) }
        });
        let time = time.expect("no failure");
        assert!((time.seconds - 7e-6).abs() < 1e-9 && time.noise < 1e-6, "{time:?}");
        assert!(numbers.into_iter().eq(0..1 + 3 + 6 * 32), "every run has a number of its own");
        let (copy, bytes) = watch.bandwidth().expect("no failure");
        assert!((copy.seconds - 1e-3).abs() < 1e-9 && bytes == 128, "{copy:?}");
    }

    #[test]
    fn the_median_is_in_the_middle() {
        assert_eq!(median(&[3.0, 1.0, 2.0]), 2.0);
        assert_eq!(median(&[4.0, 1.0, 2.0, 3.0]), 2.5);
        assert_eq!(median(&[]), 0.0);
    }
}
