use super::*;
use coterie_api::launch::TerminationReason;

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

fn messages(turns: &[(&str, &str)]) -> Vec<Message> {
    let message = |(role, content): &(&str, &str)| Message {
        role: (*role).to_owned(),
        content: (*content).to_owned(),
        name: None,
    };
    turns.iter().map(message).collect()
}

fn tokens() -> BTreeMap<String, String> {
    BTreeMap::from([("bos_token".into(), "<s>".into()), ("eos_token".into(), "</s>".into())])
}

fn render(template: &str, turns: &[(&str, &str)]) -> Result<String, String> {
    ChatTemplate::new(template, tokens()).unwrap().render(&messages(turns))
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
    let rendered =
        || ChatTemplate::load(dir.path()).unwrap().map(|t| t.render(&messages(&[("user", "a")])).unwrap());
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
    let broken = ChatTemplate::load(dir.path()).err().unwrap();
    assert_eq!(broken.reason, TerminationReason::ModelRejected);
    assert!(broken.message.contains("chat_template.jinja"), "{}", broken.message);
}
