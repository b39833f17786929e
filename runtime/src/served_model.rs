//! A model that can be asked: its tokenizer, its chat template, the way to its engine.

use crate::chat_template::{ChatTemplate, Message};
use crate::engine_thread::EngineHandle;
use crate::tokenizer::{Encoded, Tokenizer};
use coterie_api::launch::Termination;
use std::path::Path;
use std::sync::Arc;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Longer texts are split into tokens one at a time, bytes, so that a thread is left for the others. One of this
/// length takes 5 to 25 ms, one of 10 MiB 3 to 25 s.
const SHORT: usize = 16 << 10;

/// The side of a model that knows text.
pub struct TextSide {
    /// Text to tokens and back.
    pub tokenizer: Tokenizer,
    /// Conversations to text; not every model has one.
    pub chat_template: Option<ChatTemplate>,
}

impl TextSide {
    /// Reads it from the model folder `dir`.
    pub fn load(dir: &Path) -> Result<TextSide, Termination> {
        Ok(TextSide { tokenizer: Tokenizer::load(dir)?, chat_template: ChatTemplate::load(dir)? })
    }
}

/// Why a prompt did not become tokens. Both hold a sentence for the client.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NotEncoded {
    /// It cannot fit into the context.
    TooLong(String),
    /// The chat template or the tokenizer does not take it.
    Refused(String),
}

/// A model that can be asked.
#[derive(Clone)]
pub struct ServedModel {
    /// Text to tokens and back.
    pub text: Arc<TextSide>,
    /// The way to its engine.
    pub engine: EngineHandle,
    /// For the long text that is split into tokens.
    long: Arc<Semaphore>,
}

impl ServedModel {
    /// The model of which `text` and `engine` are the two sides.
    pub fn new(text: TextSide, engine: EngineHandle) -> ServedModel {
        ServedModel { text: Arc::new(text), engine, long: Arc::new(Semaphore::new(1)) }
    }

    /// The tokens of `text`; `special` as in [`Tokenizer::encode`].
    pub async fn encode(&self, text: String, special: bool) -> Result<Encoded, NotEncoded> {
        let context = self.engine.context_length();
        let most = self.text.tokenizer.most_bytes(context);
        if text.len() > most {
            return Err(NotEncoded::TooLong(format!(
                "the prompt has {} bytes, and no more than {most} fit into the context of {context} tokens; send a shorter one",
                text.len()
            )));
        }
        if text.len() <= SHORT {
            return self.aside(None, move |side| side.tokenizer.encode(&text, special)).await;
        }
        // The semaphore is never closed, so the turn always comes.
        let turn = self.long.clone().acquire_owned().await.ok();
        let encode = move |side: &TextSide| {
            let exceeds = side.tokenizer.exceeds(&text, context)?;
            if exceeds { Ok(None) } else { side.tokenizer.encode(&text, special).map(Some) }
        };
        self.aside(turn, encode).await?.ok_or_else(|| {
            NotEncoded::TooLong(format!(
                "the prompt has more tokens than the context of {context} tokens; send a shorter one"
            ))
        })
    }

    /// The tokens of a conversation, ready for the assistant's answer; none if the model has no chat template.
    pub async fn encode_chat(&self, messages: Vec<Message>) -> Option<Result<Vec<u32>, NotEncoded>> {
        self.text.chat_template.as_ref()?;
        let render = move |side: &TextSide| {
            let template = side.chat_template.as_ref().ok_or("the model has no chat template")?;
            template.render(&messages)
        };
        let prompt = match self.aside(None, render).await {
            Ok(prompt) => prompt,
            Err(refused) => return Some(Err(refused)),
        };
        // The template writes the special tokens itself.
        Some(self.encode(prompt, false).await.map(|encoded| encoded.tokens))
    }

    /// Works off the network's threads: a long text takes a while. The `turn` is held until the work is done, also if
    /// nobody waits for it any more.
    async fn aside<T: Send + 'static>(
        &self,
        turn: Option<OwnedSemaphorePermit>,
        work: impl FnOnce(&TextSide) -> Result<T, String> + Send + 'static,
    ) -> Result<T, NotEncoded> {
        let side = self.text.clone();
        let work = move || {
            let _turn = turn;
            work(&side)
        };
        let done = tokio::task::spawn_blocking(work).await;
        done.unwrap_or_else(|_| Err("the tokenizer failed on this text".to_owned()))
            .map_err(NotEncoded::Refused)
    }
}

impl NotEncoded {
    /// Its sentence.
    pub fn into_message(self) -> String {
        match self {
            NotEncoded::TooLong(message) | NotEncoded::Refused(message) => message,
        }
    }
}
