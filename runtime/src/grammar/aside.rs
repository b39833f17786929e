//! Compiling off the network's threads, one grammar at a time, with a deadline for whoever waits.

use super::{Format, GrammarError, Grammars};
use coterie_engine::Constraint;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::oneshot;
use tokio::time::timeout;

/// How long one grammar may take.
const DEADLINE: Duration = Duration::from_secs(2);
/// How long the vocabulary may take, once, on a machine that has much else to do.
const VOCABULARY: Duration = Duration::from_secs(30);
/// How long a request waits for those before it.
const PATIENCE: Duration = Duration::from_secs(10);
/// The compiler calls itself for each `$ref` in a chain of them; bytes, of which only what is used costs memory.
const STACK: usize = 128 << 20;

impl Grammars {
    /// [`compile`](Grammars::compile), for callers that must not be held up. A compilation that misses the deadline is
    /// left to end by its own limits and keeps the next ones waiting until then.
    pub async fn compile_aside(
        self: &Arc<Self>,
        format: Format,
    ) -> Result<Box<dyn Constraint>, GrammarError> {
        let place = timeout(PATIENCE, self.places.clone().acquire_owned()).await;
        let place = place.map_err(|_| GrammarError::Busy(PATIENCE.as_secs()))?;
        let deadline = if self.factory.get().is_some() { DEADLINE } else { DEADLINE + VOCABULARY };
        let (done, compiled) = oneshot::channel();
        let grammars = self.clone();
        let work = move || {
            let result = grammars.compile(&format);
            drop(place);
            // Whoever waited may have gone.
            let _ = done.send(result);
        };
        std::thread::Builder::new()
            .name("grammar".to_owned())
            .stack_size(STACK)
            .spawn(work)
            .map_err(|error| GrammarError::Unavailable(format!("no thread could be started: {error}")))?;
        match timeout(deadline, compiled).await {
            Ok(Ok(result)) => result,
            Ok(Err(_)) => Err(GrammarError::Malformed("the grammar compiler failed on it".to_owned())),
            Err(_) => Err(GrammarError::TooSlow(deadline.as_secs())),
        }
    }
}
