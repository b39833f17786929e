//! A host of experts that compute something simple, and can be told to be slow, to hang or to fail.

use coterie_engine::LoadError;
use coterie_engine::moe::activations::{decode_bf16, encode_bf16};
use coterie_engine::moe::exchange::{ExpertHost, ExpertShape, ExpertWorker, Parcel};
use std::collections::BTreeSet;
use std::sync::{Arc, Condvar, Mutex};
use std::time::Duration;

pub const SHAPE: ExpertShape = ExpertShape { layers: 2, experts: 4, hidden: 8 };

/// Clones are the same host.
#[derive(Clone, Default)]
pub struct FakeHost(Arc<Inner>);

#[derive(Default)]
struct Inner {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    held: BTreeSet<(usize, usize)>,
    loads: usize,
    panic_in: Option<u16>,
    hung: bool,
    computing: usize,
    load_fails: bool,
}

impl FakeHost {
    pub fn holding(experts: &[(usize, usize)]) -> FakeHost {
        let host = FakeHost::default();
        host.0.state.lock().unwrap().held.extend(experts);
        host
    }

    pub fn panic_in_layer(&self, layer: u16) {
        self.0.state.lock().unwrap().panic_in = Some(layer);
    }

    /// From now on who computes does not come back, until this is taken back.
    pub fn hang(&self, hung: bool) {
        self.0.state.lock().unwrap().hung = hung;
        self.0.changed.notify_all();
    }

    /// Until somebody computes here.
    pub fn wait_computing(&self) {
        let state = self.0.state.lock().unwrap();
        let limit = Duration::from_secs(20);
        let waited = self.0.changed.wait_timeout_while(state, limit, |state| state.computing == 0).unwrap();
        assert!(!waited.1.timed_out(), "nobody computes");
    }

    pub fn fail_loads(&self, fails: bool) {
        self.0.state.lock().unwrap().load_fails = fails;
    }

    pub fn loads(&self) -> usize {
        self.0.state.lock().unwrap().loads
    }
}

impl ExpertHost for FakeHost {
    fn shape(&self) -> ExpertShape {
        SHAPE
    }
    fn holds(&self, layer: usize, expert: usize) -> bool {
        self.0.state.lock().unwrap().held.contains(&(layer, expert))
    }
    fn held(&self) -> Vec<Vec<u16>> {
        let state = self.0.state.lock().unwrap();
        let of = |layer| state.held.iter().filter(|held| held.0 == layer).map(|held| held.1 as u16).collect();
        (0..SHAPE.layers).map(of).collect()
    }
    fn bytes(&self) -> u64 {
        self.0.state.lock().unwrap().held.len() as u64 * 100
    }
    fn load(&self, layer: usize, expert: usize) -> Result<(), LoadError> {
        let mut state = self.0.state.lock().unwrap();
        if state.load_fails {
            return Err(LoadError::MissingFile { path: "experts".into() });
        }
        state.loads += usize::from(state.held.insert((layer, expert)));
        Ok(())
    }
    fn release(&self, layer: usize, expert: usize) {
        self.0.state.lock().unwrap().held.remove(&(layer, expert));
    }
    fn tokens(&self) -> Vec<Vec<u64>> {
        vec![vec![0; SHAPE.experts]; SHAPE.layers]
    }
    fn worker(&self, _threads: usize) -> Box<dyn ExpertWorker> {
        Box::new(self.clone())
    }
}

impl ExpertWorker for FakeHost {
    fn compute(&mut self, parcels: &[&Parcel], answers: &mut [Vec<u8>]) -> Vec<bool> {
        let mut state = self.0.state.lock().unwrap();
        state.computing += 1;
        self.0.changed.notify_all();
        let limit = Duration::from_secs(30);
        let mut state = self.0.changed.wait_timeout_while(state, limit, |state| state.hung).unwrap().0;
        state.computing -= 1;
        let (held, panic_in) = (state.held.clone(), state.panic_in);
        drop(state);
        let mut outcomes = Vec::new();
        for (parcel, answer) in parcels.iter().zip(answers) {
            assert_eq!(parcel.layer, parcels[0].layer, "parcels of one layer");
            assert_ne!(Some(parcel.layer), panic_in, "as the test wants it");
            let layer = usize::from(parcel.layer);
            let all = parcel.experts.iter().all(|(expert, _)| held.contains(&(layer, usize::from(*expert))));
            *answer = if all { answer_to(parcel) } else { Vec::new() };
            outcomes.push(all);
        }
        outcomes
    }
}

/// Rows of different values, each sent to each of the experts.
pub fn parcel(layer: u16, experts: &[u16], rows: u32) -> Parcel {
    let mut bytes = Vec::new();
    for row in 0..rows {
        let values: Vec<f32> = (0..SHAPE.hidden).map(|at| (row * 10 + at as u32) as f32).collect();
        encode_bf16(&values, &mut bytes);
    }
    Parcel {
        layer,
        adopt: false,
        experts: experts.iter().map(|expert| (*expert, rows)).collect(),
        sends: experts.iter().flat_map(|_| 0..rows).collect(),
        row_count: rows,
        rows: bytes,
    }
}

/// What every expert makes of a row: its values times the expert's number and one more, and the layer's number.
pub fn answer_to(parcel: &Parcel) -> Vec<u8> {
    let mut answer = Vec::new();
    let mut sends = parcel.sends.iter();
    let mut values = [0.0; SHAPE.hidden];
    for &(expert, count) in &parcel.experts {
        for &row in sends.by_ref().take(count as usize) {
            decode_bf16(&parcel.rows[row as usize * SHAPE.hidden * 2..][..SHAPE.hidden * 2], &mut values);
            values = values.map(|value| value * f32::from(expert + 1) + f32::from(parcel.layer));
            encode_bf16(&values, &mut answer);
        }
    }
    answer
}
