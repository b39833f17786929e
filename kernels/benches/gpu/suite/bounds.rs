//! What nothing can be faster than: copies of memory, and launches of kernels that do nothing.

use std::time::Instant;

use coterie_kernels::cuda::elements::{Elements, Op};
use coterie_kernels::cuda::timed::{Time, Timed};

use super::figure::Figure;
use super::{Failure, Suite, read};

impl<D: Timed> Suite<'_, D> {
    pub fn bounds(&mut self) -> Result<(), Failure> {
        let (time, bytes) = self.watch.bandwidth()?;
        let bound = |op, of: &str, time, bytes, error| Figure {
            op,
            of: of.to_owned(),
            format: String::new(),
            rows: 0,
            time,
            bytes,
            flop: 0,
            error,
            note: String::new(),
        };
        (self.tell)(bound("copy", "within the memory", time, bytes, None));

        let memory = self.memory(&[1.0f32; 8])?;
        let add = Elements {
            a: memory.address(),
            b: memory.address() + 16,
            out: memory.address(),
            count: 4,
            ..Elements::default()
        };
        let add = add.launch(Op::Add);
        let ran = std::cell::Cell::new(0);
        let run = || {
            ran.set(ran.get() + 1);
            self.launch(&add)
        };
        let time = self.watch.time(1, |_| run())?;
        let mut asked = Vec::new();
        let launches = self.sizes.launches;
        for _ in 0..5 {
            let started = Instant::now();
            (0..launches).try_for_each(|_| run())?;
            asked.push(started.elapsed().as_secs_f64() / launches as f64);
            read(&memory, 0, 1, f32::from_le_bytes)?;
        }
        asked.sort_by(f64::total_cmp);
        let sum = read(&memory, 0, 1, f32::from_le_bytes)?[0];
        if sum != 1.0 + ran.get() as f32 {
            return Err(Failure::Wrong(format!("of {} additions of 1 the sum is {sum}", ran.get())));
        }
        (self.tell)(bound("launch", "on the GPU", time, 0, None));
        let noise = (asked[3] - asked[1]) / asked[2];
        (self.tell)(bound("launch", "in this process", Time { seconds: asked[2], noise }, 0, None));
        Ok(())
    }
}
