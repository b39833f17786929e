//! Chat templates: programs that came with a download.

use crate::fuzz::{Target, run};
use coterie_runtime::chat_template::{ChatTemplate, Rendering};
use coterie_runtime::conversation::{Conversation, Message, Role, Tool};
use std::collections::BTreeMap;

#[test]
fn chat_template() {
    let schema = serde_json::json!({"type": "object", "properties": {"city": {"type": "string"}}});
    let tool = Tool { name: "weather".into(), description: None, parameters: Some(schema), strict: false };
    let said = [(Role::System, "Be brief."), (Role::User, "What is <gravity>?"), (Role::Assistant, "")];
    let conversation = Conversation {
        messages: said.map(|(role, text)| Message::new(role, text)).into(),
        tools: vec![tool],
        ..Conversation::default()
    };
    let tokens = BTreeMap::from([("bos_token".to_owned(), "<s>".to_owned())]);
    let target = Target {
        name: "chat_template",
        inputs: 1_500,
        json: false,
        words: &[
            "{% for m in messages %}",
            "{% endfor %}",
            "{% if true %}",
            "{% endif %}",
            "{{ messages }}",
            "{% set x = 'x' %}",
            "{% set x = x ~ x %}",
            "{{ x }}",
            "{% generation %}",
            "{% endgeneration %}",
            "{% macro f(x) %}",
            "{% endmacro %}",
            "{{ f(1) }}",
            "{{ 'x' * 1000000000 }}",
            "range(100000)",
            "| indent(1000000000)",
            "| center(1000000000)",
            "|tojson(indent=1000000000)",
            ".replace('', m)",
            "{{ strftime_now('%Y') }}",
            "{{ '%1000000000d' | format(1) }}",
            "| batch(3)",
            "[::-1]",
            "namespace(a=1)",
            "| map('upper') | join(x)",
            "{% include 'chat_template' %}",
            "{% break %}",
            "{{ raise_exception(x) }}",
            "-9223372036854775808",
            "// 0",
            "% 0",
            "** 99",
        ],
        repair: |_| {},
        // What a hostile template may take, docs/design/012.
        memory: |input| (512 << 20) + 2000 * input,
    };
    run(&target, |text| {
        let Ok(text) = str::from_utf8(text) else { return "not UTF-8".to_owned() };
        match ChatTemplate::new(text, tokens.clone(), &Rendering::Within) {
            Err(error) => error.to_string(),
            Ok(template) => template
                .render(&conversation)
                .map_or_else(|refused| refused.to_string(), |_| "rendered".to_owned()),
        }
    });
}
