//! A rank's share of a model's experts, as it is asked for when the model is loaded.

use crate::backend::Backend;
use crate::load_error::LoadError;
use crate::moe::exchange::{Exchange, ExpertHost};
use crate::moe::host::Host;
use crate::moe::ranks::Ranks;
use coterie_api::expert_map::ExpertMap;
use coterie_api::launch::Activations;
use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;

/// Makes the way to the other ranks, once this rank's experts are there.
pub type Connect<'a> = dyn FnOnce(Arc<dyn ExpertHost>) -> Result<Box<dyn Exchange>, LoadError> + 'a;

/// What one of several ranks is told.
pub struct Share<'a> {
    /// Its number.
    pub rank: usize,
    /// Where the experts are.
    pub map: &'a ExpertMap,
    /// How rows travel.
    pub activations: Activations,
    /// Called on the engine's thread.
    pub connect: Box<Connect<'a>>,
}

impl Share<'_> {
    /// Whether the map speaks of a model of so many layers with experts and so many experts.
    pub fn check(&self, layers: usize, experts: usize) -> Result<(), LoadError> {
        let found = [self.map.layers(), self.map.experts()];
        match found == [layers, experts] {
            true => Ok(()),
            false => Err(LoadError::ExpertMap { found, expected: [layers, experts] }),
        }
    }

    /// Lets others in, and finds the way to them.
    pub fn open<B: Backend + 'static>(self, host: Host<B>) -> Result<Rc<Ranks>, LoadError> {
        let counts = host.counts();
        let exchange = (self.connect)(Arc::new(Arc::new(host)))?;
        Ok(Rc::new(Ranks { activations: self.activations, exchange: RefCell::new(exchange), counts }))
    }
}
