//! A model that can be asked: its tokenizer, its chat template, the way to its engine.

use crate::chat_template::ChatTemplate;
use crate::conversation::Conversation;
use crate::engine_thread::EngineHandle;
use crate::grammar::Grammars;
use crate::reasoning;
use crate::tokenizer::{Encoded, Tokenizer};
use coterie_api::launch::Termination;
use std::path::Path;
use std::sync::Arc;

/// The side of a model that knows text.
pub struct TextSide {
    /// Text to tokens and back.
    pub tokenizer: Tokenizer,
    /// Conversations to text; not every model has one.
    pub chat_template: Option<ChatTemplate>,
    /// The model marks its reasoning: its template or its tokenizer knows the tags.
    pub reasons: bool,
}

impl TextSide {
    /// Reads it from the model folder `dir`.
    pub fn load(dir: &Path) -> Result<TextSide, Termination> {
        let (tokenizer, chat_template) = (Tokenizer::load(dir)?, ChatTemplate::load(dir)?);
        let knows = |tag: &&str| {
            let in_template = chat_template.as_ref().is_some_and(|template| template.mentions(tag));
            in_template || tokenizer.token(tag).is_some()
        };
        let reasons = reasoning::TAGS.iter().all(knows);
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

/// A model that can be asked.
#[derive(Clone)]
pub struct ServedModel {
    /// Text to tokens and back.
    pub text: Arc<TextSide>,
    /// The way to its engine.
    pub engine: EngineHandle,
    /// Forms that its answers can be given.
    pub grammars: Arc<Grammars>,
}

impl ServedModel {
    /// The tokens of `text`; `special` as in [`Tokenizer::encode`]. The error is a sentence for the client.
    pub async fn encode(&self, text: String, special: bool) -> Result<Encoded, String> {
        self.aside(move |side| side.tokenizer.encode(&text, special)).await
    }

    /// The prompt for a conversation, ready for the assistant's answer; none if the model has no chat template.
    pub async fn encode_chat(&self, conversation: Conversation) -> Option<Result<ChatPrompt, String>> {
        self.text.chat_template.as_ref()?;
        let encode = move |side: &TextSide| {
            let template = side.chat_template.as_ref().ok_or("the model has no chat template")?;
            let text = template.render(&conversation)?;
            // The template writes the special tokens itself.
            let tokens = side.tokenizer.encode(&text, false)?.tokens;
            Ok(ChatPrompt { text, tokens })
        };
        Some(self.aside(encode).await)
    }

    /// Works off the network's threads: a long text takes a while.
    async fn aside<T: Send + 'static>(
        &self,
        work: impl FnOnce(&TextSide) -> Result<T, String> + Send + 'static,
    ) -> Result<T, String> {
        let side = self.text.clone();
        let done = tokio::task::spawn_blocking(move || work(&side)).await;
        done.unwrap_or_else(|_| Err("the tokenizer failed on this text".to_owned()))
    }
}
