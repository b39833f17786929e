mod families;

use super::bounds::LARGEST_TEMPLATE;
use super::*;
use crate::conversation::{CallKind, CalledFunction, ToolCall};
use coterie_api::launch::TerminationReason;
use serde_json::json;

const CHATML: &str = "{% for message in messages %}{% if loop.first and messages[0]['role'] != 'system' %}\
{{ '<|im_start|>system\nYou are a helpful AI assistant<|im_end|>\n' }}{% endif %}\
{{'<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>' + '\n'}}{% endfor %}\
{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}";

const MIXTRAL: &str = "{{ bos_token }}{% for message in messages %}\
{% if (message['role'] == 'user') != (loop.index0 % 2 == 0) %}\
{{ raise_exception('Conversation roles must alternate user/assistant/user/assistant/...') }}{% endif %}\
{% if message['role'] == 'user' %}{{ '[INST] ' + message['content'] + ' [/INST]' }}\
{% elif message['role'] == 'assistant' %}{{ message['content'] + eos_token}}\
{% else %}{{ raise_exception('Only user and assistant roles are supported!') }}{% endif %}{% endfor %}";

fn messages(turns: &[(&str, &str)]) -> Conversation {
    let role = |name: &str| match name {
        "system" => Role::System,
        "developer" => Role::Developer,
        "user" => Role::User,
        "assistant" => Role::Assistant,
        "tool" => Role::Tool,
        other => panic!("{other}"),
    };
    let messages = turns.iter().map(|(name, content)| Message::new(role(name), *content)).collect();
    Conversation { messages, ..Conversation::default() }
}

fn tokens() -> BTreeMap<String, String> {
    BTreeMap::from([("bos_token".into(), "<s>".into()), ("eos_token".into(), "</s>".into())])
}

fn render(template: &str, turns: &[(&str, &str)]) -> Result<String, String> {
    ChatTemplate::new(template, tokens(), &Rendering::Within)
        .unwrap()
        .render(&messages(turns))
        .map_err(|why| why.to_string())
}

#[test]
fn real_templates_render_as_their_models_expect() {
    assert_eq!(
        render(CHATML, &[("user", "Hi <&>")]).unwrap(),
        "<|im_start|>system\nYou are a helpful AI assistant<|im_end|>\n<|im_start|>user\nHi <&><|im_end|>\n<|im_start|>assistant\n"
    );
    assert_eq!(
        render(MIXTRAL, &[("user", "a"), ("assistant", "b"), ("user", "c")]).unwrap(),
        "<s>[INST] a [/INST]b</s>[INST] c [/INST]"
    );
}

#[test]
fn an_exception_of_the_template_reaches_the_client_in_its_words() {
    let refused = render(MIXTRAL, &[("user", "a"), ("user", "b")]).unwrap_err();
    assert!(
        refused.ends_with("Conversation roles must alternate user/assistant/user/assistant/..."),
        "{refused}"
    );
    let unsupported = render(MIXTRAL, &[("system", "a")]).unwrap_err();
    assert!(unsupported.contains("alternate") || unsupported.contains("Only user"), "{unsupported}");
}

#[test]
fn a_template_sees_what_huggingface_gives_it() {
    let cases = [
        ("{{ missing }}{{ tools is none }}{{ add_generation_prompt }}", "TrueTrue"),
        ("{{ messages[0].content.strip().upper().startswith('HI') }}", "True"),
        ("{{ messages[0] | tojson }}", r#"{"role": "user", "content": " hi "}"#),
        ("{% for m in messages %}\n  {% if true %}\nx\n  {% endif %}\n{% endfor %}\n", "x\n"),
        (
            "{% for k, v in messages[0].items() %}{{ k }},{% if loop.last %}{% break %}{% endif %}{% endfor %}",
            "role,content,",
        ),
        (
            "{% set ns = namespace(n=0) %}{% for m in messages %}{% set ns.n = ns.n + 1 %}{% endfor %}{{ ns.n }}",
            "1",
        ),
        ("{%- generation -%} a {%- endgeneration %}{{ messages[-1]['role'] }}", "auser"),
        ("{{ strftime_now('%Y') | length }}", "4"),
    ];
    for (template, expected) in cases {
        assert_eq!(render(template, &[("user", " hi ")]).unwrap(), expected, "{template}");
    }
}

#[test]
fn a_template_cannot_run_away() {
    let endless = "{% for a in range(99999) %}{% for b in range(99999) %}x{% endfor %}{% endfor %}";
    assert!(render(endless, &[("user", "a")]).unwrap_err().contains("fuel"));
    let huge = "{% set x = 'aaaaaaaa' * 1000000000000 %}{{ x | length }}";
    assert!(render(huge, &[("user", "a")]).is_err());
    let deep = "{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}";
    assert!(render(deep, &[("user", "a")]).is_err());
}

#[test]
fn the_template_is_found_in_each_of_its_places() {
    let dir = tempfile::tempdir().unwrap();
    let rendered = || {
        ChatTemplate::load(dir.path(), &Rendering::Within)
            .unwrap()
            .map(|t| t.render(&messages(&[("user", "a")])).unwrap())
    };
    assert_eq!(rendered(), None);

    let config = |template: &str| {
        let json = format!(r#"{{"bos_token":{{"content":"<b>"}},"chat_template":{template}}}"#);
        std::fs::write(dir.path().join("tokenizer_config.json"), json).unwrap();
    };
    config(r#""{{ bos_token }}plain""#);
    assert_eq!(rendered().unwrap(), "<b>plain");
    config(
        r#"[{"name":"tool_use","template":"t"},{"name":"default","template":"{{ bos_token }}named{{ eos_token }}"}]"#,
    );
    std::fs::write(dir.path().join("special_tokens_map.json"), r#"{"eos_token":"<e>","bos_token":"<x>"}"#)
        .unwrap();
    assert_eq!(rendered().unwrap(), "<b>named<e>");
    std::fs::write(dir.path().join("chat_template.jinja"), "own").unwrap();
    assert_eq!(rendered().unwrap(), "own");

    std::fs::write(dir.path().join("chat_template.jinja"), "{% if %}").unwrap();
    let broken = ChatTemplate::load(dir.path(), &Rendering::Within).err().unwrap();
    assert_eq!(broken.reason, TerminationReason::ModelRejected);
    assert!(broken.message.contains("chat_template.jinja"), "{}", broken.message);
}

/// The part of Qwen2.5's template that is about tools, shortened.
const QWEN: &str = r#"{%- if tools %}{{ '<|im_start|>system\n<tools>' }}{%- for tool in tools %}{{- '\n' + (tool | tojson) }}
{%- endfor %}{{- '\n</tools>\n<tool_call>\n{"name": <function-name>, "arguments": <args>}\n</tool_call><|im_end|>\n' }}{%- endif %}
{%- for message in messages %}
{%- if message.role == 'assistant' and message.tool_calls %}{{- '<|im_start|>assistant' }}
{%- if message.content %}{{- '\n' + message.content }}{%- endif %}
{%- for tool_call in message.tool_calls %}{%- set tool_call = tool_call.function %}
{{- '\n<tool_call>\n{"name": "' + tool_call.name + '", "arguments": ' }}{{- tool_call.arguments | tojson }}{{- '}\n</tool_call>' }}
{%- endfor %}{{- '<|im_end|>\n' }}
{%- else %}{{- '<|im_start|>' + message.role + '\n' + message.content + '<|im_end|>\n' }}{%- endif %}{%- endfor %}
{%- if enable_thinking is defined and enable_thinking is false %}{{- '<think>\n\n</think>' }}{%- endif %}"#;

fn weather(template: &str) -> Conversation {
    let mut conversation = messages(&[("user", "How warm?"), ("assistant", ""), ("tool", "9")]);
    let function = CalledFunction { name: "weather".into(), arguments: json!({"city": "Köln", "days": 2}) };
    let call = ToolCall { id: "call_1".into(), kind: CallKind::Function, function };
    let answer = &mut conversation.messages[1];
    (answer.content, answer.tool_calls) = (None, vec![call]);
    let parameters = Some(json!({"type": "object", "properties": {}}));
    conversation.tools = vec![Tool { name: "weather".into(), description: None, parameters, strict: true }];
    conversation.variables.insert("enable_thinking".into(), json!(template == CHATML));
    conversation
}

#[test]
fn a_template_that_knows_tools_is_given_them_as_transformers_gives_them() {
    let template = ChatTemplate::new(QWEN, tokens(), &Rendering::Within).unwrap();
    assert_eq!(template.tool_format(), ToolFormat::Hermes);
    let expected = "<|im_start|>system\n<tools>\n\
        {\"type\": \"function\", \"function\": {\"name\": \"weather\", \
        \"parameters\": {\"type\": \"object\", \"properties\": {}}}}\n</tools>\n\
        <tool_call>\n{\"name\": <function-name>, \"arguments\": <args>}\n</tool_call><|im_end|>\n\
        <|im_start|>user\nHow warm?<|im_end|>\n\
        <|im_start|>assistant\n<tool_call>\n\
        {\"name\": \"weather\", \"arguments\": {\"city\": \"Köln\", \"days\": 2}}\n</tool_call><|im_end|>\n\
        <|im_start|>tool\n9<|im_end|>\n<think>\n\n</think>";
    assert_eq!(template.render(&weather(QWEN)).unwrap(), expected);
}

/// What Qwen3's template does with an answer, and Qwen3-Coder's with tools, shortened.
const QWEN_3: &str = r#"{%- if tools is iterable and tools | length > 0 %}{{- '<tools>\n<tool_call>\n{"name": <function-name>, "arguments": <args>}\n</tool_call>\n' }}{% endif %}
{%- for message in messages %}
{%- set content = message.content %}{%- set thought = '' %}
{%- if message.reasoning_content is defined and message.reasoning_content is not none %}
{%- set thought = message.reasoning_content.strip('\n') %}{%- set content = message.content.lstrip('\n') %}
{%- elif '</think>' in message.content %}{%- set content = message.content.split('</think>')[-1] %}{%- endif %}
{{- message.role + ':' + thought + content }}
{%- for call in message.tool_calls or [] %}{{- '<tool_call>' + call.function.name + '</tool_call>' }}{% endfor %}{{- ';' }}
{%- endfor %}"#;

#[test]
fn an_answer_of_calls_alone_may_come_back_to_a_template_that_wants_a_text() {
    let template = ChatTemplate::new(QWEN_3, tokens(), &Rendering::Within).unwrap();
    let mut conversation = weather(QWEN_3);
    let prompt = template.render(&conversation).unwrap();
    assert!(prompt.ends_with("user:How warm?;assistant:<tool_call>weather</tool_call>;tool:9;"), "{prompt}");
    conversation.messages[1].reasoning_content = Some("hm".into());
    let prompt = template.render(&conversation).unwrap();
    assert!(prompt.contains("assistant:hm<tool_call>weather</tool_call>;"), "{prompt}");
}

#[test]
fn no_tools_are_nothing_that_one_can_go_through() {
    assert_eq!(render(QWEN_3, &[("user", "hi")]).unwrap(), "user:hi;");
    let tested = "{% for m in messages %}{{ tools is iterable }} {{ m is iterable }} {{ nothing is iterable }}{% endfor %}";
    assert_eq!(render(tested, &[("user", "hi")]).unwrap(), "False True True", "as Jinja has it");
}

#[test]
fn tools_work_with_templates_that_know_none() {
    let chatml = ChatTemplate::new(CHATML, tokens(), &Rendering::Within).unwrap();
    let prompt = chatml.render(&weather(CHATML)).unwrap();
    assert!(prompt.starts_with("<|im_start|>system\n# Tools\n"), "{prompt}");
    let ends = "<|im_start|>assistant\n<tool_call>\n{\"name\": \"weather\", \
        \"arguments\": {\"city\": \"Köln\", \"days\": 2}}\n</tool_call><|im_end|>\n\
        <|im_start|>user\n<tool_response>\n9\n</tool_response><|im_end|>\n<|im_start|>assistant\n";
    assert!(prompt.ends_with(ends), "{prompt}");

    // Mixtral's refuses system messages, and two turns of one side.
    let mixtral = ChatTemplate::new(MIXTRAL, tokens(), &Rendering::Within).unwrap();
    let prompt = mixtral.render(&weather(MIXTRAL)).unwrap();
    assert!(prompt.starts_with("<s>[INST] # Tools\n"), "{prompt}");
    assert!(prompt.ends_with("</s>[INST] <tool_response>\n9\n</tool_response> [/INST]"), "{prompt}");
    assert_eq!(mixtral.tool_format(), ToolFormat::Hermes);
}

#[test]
fn developers_are_systems_where_the_template_knows_no_developer() {
    let plain = "{% for m in messages %}{{ m.role }} {% endfor %}";
    assert_eq!(render(plain, &[("developer", "a"), ("user", "b")]).unwrap(), "system user ");
    let knows = "{# developer #}{% for m in messages %}{{ m.role }} {% endfor %}";
    assert_eq!(render(knows, &[("developer", "a"), ("user", "b")]).unwrap(), "developer user ");
}

#[test]
fn variables_reach_the_template_but_cannot_take_the_conversations_place() {
    let mut conversation = messages(&[("user", "a")]);
    conversation.variables.insert("mode".into(), json!({"deep": [1]}));
    conversation.variables.insert("messages".into(), json!([]));
    let template =
        ChatTemplate::new("{{ mode.deep[0] }}{{ messages | length }}", tokens(), &Rendering::Within).unwrap();
    assert_eq!(template.render(&conversation).unwrap(), "11");
}

/// A list that holds itself twice, sixty times over.
const DOUBLED: &str =
    "{% set ns = namespace(a=[1]) %}{% for i in range(60) %}{% set ns.a = [ns.a, ns.a] %}{% endfor %}";
/// A hundred thousand lists in each other.
const DEEP: &str =
    "{% set ns = namespace(a=[]) %}{% for i in range(20000) %}{% set ns.a = [[[[[ns.a]]]]] %}{% endfor %}";

#[test]
fn a_template_that_means_harm_gets_an_error() {
    let before = crate::machine::peak_memory().unwrap();
    for (template, said) in [
        (
            "{% set ns = namespace(a='x') %}{% for i in range(40) %}{% set ns.a = ns.a ~ ns.a %}{% endfor %}",
            "fuel",
        ),
        ("{{ 'x' * 10**9 }}", "fuel"),
        ("{{ ('x' * 10**8) }}{{ 'x' * 10**8 }}", "bytes were written"),
        ("{{ range(10**9) | join }}", "too many"),
        ("{{ (range(99999) | list * 1000) | join('xxxxxxxx') }}", "fuel"),
        ("{{ 'x' | indent(10**9) }}", "fuel"),
        ("{{ '%1000000000s' | format('x') }}", "fuel"),
        ("{{ '{:>1000000000}'.format('x') }}", "digits"),
        ("{{ ('a' * 10**6) | replace('a', 'b' * 10**6) }}", "fuel"),
        ("{{ ('a' * 10**6).replace('a', 'b' * 10**6) }}", "fuel"),
        ("{{ ('b' * 10**6).join('a' * 10**6) }}", "fuel"),
        ("{{ ('x' * 5 * 10**7).split('x') }}", "fuel"),
        (
            "{% set s = 'x' * 10**7 %}{% for i in range(99999) %}{% if s.count('y') %}{% endif %}{% endfor %}",
            "fuel",
        ),
        ("{{ messages | tojson(indent=10**9) }}", "indent"),
        ("{{ ('x' * 10**7) | tojson }}", "bytes were written"),
        ("{{ debug() }}", "debug is unknown"),
        ("{{ strftime_now('%') }}", "strftime_now"),
        ("{{ strftime_now('%999999999d') }}", "strftime_now"),
        ("{% include '/etc/passwd' %}", "non-existing"),
        ("{% import '/etc/passwd' as p %}", "non-existing"),
        ("{{ 9 ** 99999999 }}", "unable to calculate"),
    ] {
        let refused = render(template, &[("user", "a")]).expect_err(template);
        assert!(refused.contains(said), "{template}: {refused}");
    }
    let doubled = render(&format!("{DOUBLED}{{{{ ns.a | tojson }}}}"), &[]).unwrap_err();
    assert!(doubled.contains("bytes were written"), "{doubled}");
    assert!(render(&format!("{DOUBLED}{{{{ ns.a }}}}"), &[]).is_err());
    assert_eq!(render(&format!("{DEEP}done"), &[]).unwrap(), "done");
    assert!(render(&format!("{DEEP}{{{{ ns.a | tojson }}}}"), &[]).unwrap_err().contains("recursion"));
    assert_eq!(render(&format!("{DEEP}{{{{ ns.a == [ns.a] }}}}"), &[]).unwrap(), "False");
    let grown = crate::machine::peak_memory().unwrap() - before;
    assert!(grown < 1 << 30, "{grown} bytes");
}

#[test]
fn a_long_conversation_is_within_the_bounds() {
    let turn = "word ".repeat(200);
    let turns: Vec<(&str, &str)> = (0..5000).map(|_| ("user", turn.as_str())).collect();
    assert!(render(CHATML, &turns).unwrap().len() > 5_000_000);
}

#[test]
fn the_text_of_a_template_cannot_exhaust_the_stack() {
    let chained = |unit: &str| format!("{{{{ 1{} }}}}", unit.repeat((LARGEST_TEMPLATE - 8) / unit.len()));
    for unit in ["|e", ".a", "+1", "<1", "()", " is a", " if 1 else 1"] {
        // Some are valid, some are not; all are answered.
        drop(
            ChatTemplate::new(&chained(unit), tokens(), &Rendering::Within)
                .map(|template| template.render(&messages(&[]))),
        );
    }
    for opened in ["{{ (", "{{ [", "{{ -", "{{ not ", "{% if a %}", "{% for a in b %}"] {
        assert!(
            ChatTemplate::new(&opened.repeat(LARGEST_TEMPLATE / opened.len()), tokens(), &Rendering::Within)
                .is_err(),
            "{opened}"
        );
    }
    assert!(ChatTemplate::new(&"x".repeat(LARGEST_TEMPLATE + 1), tokens(), &Rendering::Within).is_err());
}
