//! A model that can be asked: its tokenizer, its chat template, the way to its engine.

use crate::chat_template::{ChatTemplate, NotRendered, Rendering};
use crate::conversation::Conversation;
use crate::engine_thread::EngineHandle;
use crate::grammar::Grammars;
use crate::reasoning;
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
    /// The model marks its reasoning: its template or its tokenizer knows the tags, or its format says so.
    pub reasons: bool,
}

impl TextSide {
    /// Reads it from the model folder `dir`.
    pub fn load(dir: &Path, rendering: &Rendering) -> Result<TextSide, Termination> {
        let (tokenizer, chat_template) = (Tokenizer::load(dir)?, ChatTemplate::load(dir, rendering)?);
        let knows = |tag: &&str| {
            let in_template = chat_template.as_ref().is_some_and(|template| template.mentions(tag));
            in_template || tokenizer.token(tag).is_some()
        };
        let format = chat_template.as_ref().map(ChatTemplate::tool_format);
        let reasons = reasoning::TAGS.iter().all(knows)
            || format.is_some_and(|format| format.marks_reasoning() || format.thinks());
        Ok(TextSide { tokenizer, chat_template, reasons })
    }
}

/// A conversation as the model is given it.
#[derive(Clone, Debug)]
pub struct ChatPrompt {
    /// As text.
    pub text: String,
    /// As tokens.
    pub tokens: Vec<u32>,
}

/// Why a prompt did not become tokens. Each holds a sentence for the client.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NotEncoded {
    /// The machine would not; another try may succeed.
    Failed(String),
    /// It cannot fit into the context.
    TooLong(String),
    /// The chat template or the tokenizer does not take it.
    Refused(String),
    /// The chat template takes more time or memory for it than it may.
    Exceeded(String),
}

/// A model that can be asked.
#[derive(Clone)]
pub struct ServedModel {
    /// Text to tokens and back.
    pub text: Arc<TextSide>,
    /// The way to its engine.
    pub engine: EngineHandle,
    /// Forms that its answers can be given.
    pub grammars: Arc<Grammars>,
    /// For the long text that is split into tokens, or the long answer that is followed.
    long: Arc<Semaphore>,
    /// For the conversation that is rendered.
    rendering: Arc<Semaphore>,
}

impl ServedModel {
    /// The model of which `text` and `engine` are the two sides, and `grammars` the forms of its answers.
    pub fn new(text: Arc<TextSide>, engine: EngineHandle, grammars: Arc<Grammars>) -> ServedModel {
        let turn = || Arc::new(Semaphore::new(1));
        ServedModel { text, engine, grammars, long: turn(), rendering: turn() }
    }

    /// Waits for the turn to do what takes long beside the network's threads; it lasts until it is dropped. It
    /// always comes: the semaphore is never closed.
    pub async fn turn(&self) -> Option<OwnedSemaphorePermit> {
        self.long.clone().acquire_owned().await.ok()
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
            let encode = move |side: &TextSide| side.tokenizer.encode(&text, special);
            return self.aside(None, move |side| encode(side).map_err(NotEncoded::Refused)).await;
        }
        let turn = self.turn().await;
        let encode = move |side: &TextSide| {
            let exceeds = side.tokenizer.exceeds(&text, context)?;
            if exceeds { Ok(None) } else { side.tokenizer.encode(&text, special).map(Some) }
        };
        let encode = move |side: &TextSide| encode(side).map_err(NotEncoded::Refused);
        self.aside(turn, encode).await?.ok_or_else(|| {
            NotEncoded::TooLong(format!(
                "the prompt has more tokens than the context of {context} tokens; send a shorter one"
            ))
        })
    }

    /// The prompt for a conversation, ready for the assistant's answer; none if the model has no chat template.
    pub async fn encode_chat(&self, conversation: Conversation) -> Option<Result<ChatPrompt, NotEncoded>> {
        // One at a time: whatever a template makes of a conversation, a thread is left for the others' texts.
        let turn = self.rendering.clone().acquire_owned().await.ok();
        let render = move |side: &TextSide| {
            let template = side.chat_template.as_ref().map(|template| template.render(&conversation));
            Ok(template.transpose()?)
        };
        let text = match self.aside(turn, render).await.transpose()? {
            Ok(text) => text,
            Err(refused) => return Some(Err(refused)),
        };
        // The template writes the special tokens itself.
        let encoded = self.encode(text.clone(), false).await;
        Some(encoded.map(|encoded| ChatPrompt { text, tokens: encoded.tokens }))
    }

    /// Works off the network's threads: a long text takes a while. The `turn` is held until the work is done, also if
    /// nobody waits for it any more.
    async fn aside<T: Send + 'static>(
        &self,
        turn: Option<OwnedSemaphorePermit>,
        work: impl FnOnce(&TextSide) -> Result<T, NotEncoded> + Send + 'static,
    ) -> Result<T, NotEncoded> {
        let side = self.text.clone();
        let work = move || {
            let _turn = turn;
            work(&side)
        };
        let done = tokio::task::spawn_blocking(work).await;
        done.unwrap_or_else(|_| Err(NotEncoded::Refused("the tokenizer failed on this text".to_owned())))
    }
}

impl NotEncoded {
    /// Its sentence.
    pub fn into_message(self) -> String {
        match self {
            NotEncoded::Failed(message)
            | NotEncoded::TooLong(message)
            | NotEncoded::Refused(message)
            | NotEncoded::Exceeded(message) => message,
        }
    }
}

impl From<NotRendered> for NotEncoded {
    fn from(why: NotRendered) -> NotEncoded {
        match why {
            NotRendered::Failed(_) => NotEncoded::Failed(why.to_string()),
            NotRendered::Refused(_) => {
                NotEncoded::Refused(format!("the model's chat template refuses these messages: {why}"))
            }
            NotRendered::Exceeded(_) => {
                NotEncoded::Exceeded(format!("the model's chat template cannot render these messages: {why}"))
            }
        }
    }
}
