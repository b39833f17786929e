//! The draft module of DeepSeek-V3 (multi-token prediction, [arXiv:2412.19437](https://arxiv.org/abs/2412.19437), section
//! 2.2): from what the model makes of a token and from the token that follows, a guess at the one after that. Its
//! checkpoint has it as one more layer; embedding and head are the model's.

use crate::backend::Backend;
use crate::batch::Batch;
use crate::load_error::LoadError;
use crate::model::Room;
use crate::model::config::Config;
use crate::model::decoder::{Decoder, Ropes};
use crate::model::layer::{DecoderLayer, LayerWeights};
use crate::weights::{Loader, Role, Storage};

/// The weights of a draft module.
pub struct DraftWeights<S: Storage> {
    /// Of the next token's embedding, `[hidden]`.
    token_norm: S::Vector,
    /// Of what the model makes of a token, `[hidden]`.
    hidden_norm: S::Vector,
    /// From both, side by side, to a residual stream: `[hidden, 2 · hidden]`.
    project: S::Matrix,
    layer: LayerWeights<S>,
    /// Before the head, `[hidden]`.
    norm: S::Vector,
}

impl<S: Storage> DraftWeights<S> {
    /// Loads the layer behind the last, which is like the last. Every rank has all of its experts: `loader` has no share.
    pub fn load(loader: &Loader<'_, S>, config: &Config) -> Result<Self, LoadError> {
        let (l, hidden) = (config.layers.len(), config.hidden);
        let name = |name| format!("model.layers.{l}.{name}.weight");
        if !loader.has(&name("eh_proj")) {
            return Err(LoadError::NoDraftModule { tensor: name("eh_proj") });
        }
        let vector = |of| loader.vector(&name(of), hidden);
        Ok(DraftWeights {
            token_norm: vector("enorm")?,
            hidden_norm: vector("hnorm")?,
            project: loader.matrix(&name("eh_proj"), [hidden, 2 * hidden], Role::Dense)?,
            layer: LayerWeights::load(
                loader,
                config,
                &config.layers[l - 1],
                l,
                config.expert_layers().count(),
            )?,
            norm: vector("shared_head.norm")?,
        })
    }
}

/// A draft module beside its model, with a state of its own.
pub struct Draft<B: Backend> {
    token_norm: B::Vector,
    hidden_norm: B::Vector,
    project: B::Matrix,
    layer: DecoderLayer<B>,
    norm: B::Vector,
    eps: f32,
}

impl<B: Backend + 'static> Draft<B>
where
    B::Rope: Clone,
{
    /// Weights with `room` for sequences.
    pub fn new(
        backend: &B,
        config: &Config,
        weights: DraftWeights<B>,
        room: Room,
    ) -> Result<Self, LoadError> {
        let DraftWeights { token_norm, hidden_norm, project, layer, norm } = weights;
        let (plan, eps) = (&config.layers[config.layers.len() - 1], config.rms_norm_eps);
        let layer = DecoderLayer::new(backend, &mut Ropes::default(), plan, layer, room, None, eps)?;
        Ok(Draft { token_norm, hidden_norm, project, layer, norm, eps })
    }
}

impl<B: Backend + 'static> Draft<B> {
    /// Logits of the token behind each row of `batch`, `[rows, vocabulary]`.
    pub fn logits(&mut self, model: &Decoder<B>, seen: &B::Tensor, batch: &Batch) -> B::Tensor {
        let normed = self.forward(model, seen, batch);
        model.head(&normed)
    }

    /// What is before the head at each row of `batch`, `[rows, hidden]`. Row i of `seen` is what the model's
    /// [final norm](Decoder::normed) gave at the token before row i. The state of a sequence lies in blocks as the
    /// model's does, a token later.
    pub fn forward(&mut self, model: &Decoder<B>, seen: &B::Tensor, batch: &Batch) -> B::Tensor {
        let backend = model.backend();
        let placed = backend.place(batch);
        let token = backend.rms_norm(&model.embed(&placed), &self.token_norm, self.eps);
        let seen = backend.rms_norm(seen, &self.hidden_norm, self.eps);
        let [mut x] = backend.matmul(&backend.join(&token, &seen, 1), [&self.project]);
        self.layer.forward(backend, &placed, &mut x);
        backend.rms_norm(&x, &self.norm, self.eps)
    }
}
