//! Where a model folder keeps its chat template and its special tokens.

use crate::termination::model_rejected;
use crate::tokenizer::read_file;
use coterie_api::launch::Termination;
use serde_json::{Map, Value};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

const LARGEST_FILE: u64 = 64 << 20;

pub(super) struct Source {
    /// The file that the template was found in.
    pub path: PathBuf,
    pub text: String,
    /// By variable name: `bos_token` and the like.
    pub special_tokens: BTreeMap<String, String>,
}

/// The template of the model in `dir`, if it has one. The file of its own wins over tokenizer_config.json, and
/// tokenizer_config.json's tokens over those of special_tokens_map.json.
pub(super) fn read(dir: &Path) -> Result<Option<Source>, Termination> {
    let config_path = dir.join("tokenizer_config.json");
    let config = read_object(&config_path)?;
    let mut special_tokens = tokens_in(&read_object(&dir.join("special_tokens_map.json"))?);
    special_tokens.extend(tokens_in(&config));

    let own_path = dir.join("chat_template.jinja");
    if let Some(bytes) = read_file(&own_path, LARGEST_FILE)? {
        let text = String::from_utf8(bytes).map_err(|_| {
            model_rejected(format!("{} is not UTF-8 text; download it again", own_path.display()))
        })?;
        return Ok(Some(Source { path: own_path, text, special_tokens }));
    }
    let Some(given) = config.get("chat_template").filter(|given| !given.is_null()) else { return Ok(None) };
    let text = default_template(given).map(str::to_owned).ok_or_else(|| {
        model_rejected(format!(
            "{}: chat_template is neither a text nor a list of named templates; download it again, or remove it to \
             serve without conversations",
            config_path.display()
        ))
    })?;
    Ok(Some(Source { path: config_path, text, special_tokens }))
}

/// `{% generation %}` marks the assistant's words for training. It prints nothing, but Jinja alone does not know it:
/// it becomes an `if` that is always true.
pub(super) fn without_generation_marks(template: &str) -> String {
    let mut out = String::with_capacity(template.len());
    let mut rest = template;
    while let Some(start) = rest.find("{%") {
        let (before, tag) = rest.split_at(start);
        out.push_str(before);
        let end = tag.find("%}").map_or(tag.len(), |end| end + 2);
        let (tag, after) = tag.split_at(end);
        match tag.trim_start_matches("{%").trim_end_matches("%}").trim_matches(['-', '+', ' ', '\n', '\t']) {
            "generation" => out.push_str(&tag.replace("generation", "if true")),
            "endgeneration" => out.push_str(&tag.replace("endgeneration", "endif")),
            _ => out.push_str(tag),
        }
        rest = after;
    }
    out + rest
}

/// A template, or the one called `default` in a list of named ones.
fn default_template(value: &Value) -> Option<&str> {
    if let Some(text) = value.as_str() {
        return Some(text);
    }
    let named = value.as_array()?;
    let default = named.iter().find(|entry| entry["name"] == "default").or_else(|| named.first())?;
    default["template"].as_str()
}

/// Every `…_token`, given as a string or as an object with `content`.
fn tokens_in(object: &Map<String, Value>) -> BTreeMap<String, String> {
    let named = object.iter().filter(|(name, _)| name.ends_with("_token"));
    named
        .filter_map(|(name, value)| {
            let text = value.as_str().or_else(|| value.get("content")?.as_str())?;
            Some((name.clone(), text.to_owned()))
        })
        .collect()
}

/// The object in a JSON file; empty if the file is not there.
fn read_object(path: &Path) -> Result<Map<String, Value>, Termination> {
    let Some(bytes) = read_file(path, LARGEST_FILE)? else { return Ok(Map::new()) };
    serde_json::from_slice(&bytes).map_err(|error| {
        model_rejected(format!("{} is not a JSON object: {error}; download it again", path.display()))
    })
}
