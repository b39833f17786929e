//! What templates want of messages beside what all agree on.

use super::*;

/// DeepSeek-V3.1's, without its reasoning: it is told of calls, not of tools, and arguments are text.
const DEEPSEEK: &str = "{{ bos_token }}{%- for m in messages %}{%- if m['role'] == 'system' %}{{ m['content'] }}{%- endif %}\
    {%- if m['role'] == 'user' %}{{ '<｜User｜>' + m['content'] }}{%- endif %}\
    {%- if m['role'] == 'assistant' and m['tool_calls'] is defined %}{{ '<｜Assistant｜></think>' }}\
    {%- for t in m['tool_calls'] %}{{ '<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>' + t['function']['name'] + '<｜tool▁sep｜>' \
    + t['function']['arguments'] + '<｜tool▁call▁end｜>' }}{%- endfor %}{{ '<｜tool▁calls▁end｜>' }}{%- endif %}\
    {%- if m['role'] == 'tool' %}{{ '<｜tool▁output▁begin｜>' + m['content'] + '<｜tool▁output▁end｜>' }}{%- endif %}{%- endfor %}";

#[test]
fn deepseek_is_told_of_tools_in_its_own_words_and_of_arguments_as_text() {
    let template = ChatTemplate::new(DEEPSEEK, tokens(), &Rendering::Within).unwrap();
    assert_eq!(template.tool_format(), ToolFormat::DeepSeekV31);
    let prompt = template.render(&weather(DEEPSEEK)).unwrap();
    assert!(
        prompt.starts_with("<s>## Tools\nYou have access to the following tools:\n{\"type\": "),
        "{prompt}"
    );
    assert!(
        prompt.contains("<｜tool▁call▁begin｜>tool_call_name<｜tool▁sep｜>tool_call_arguments"),
        "{prompt}"
    );
    let end = "<｜User｜>How warm?<｜Assistant｜></think><｜tool▁calls▁begin｜><｜tool▁call▁begin｜>weather<｜tool▁sep｜>\
        {\"city\": \"Köln\", \"days\": 2}<｜tool▁call▁end｜><｜tool▁calls▁end｜><｜tool▁output▁begin｜>9<｜tool▁output▁end｜>";
    assert!(prompt.ends_with(end), "{prompt}");
}

/// MiniMax-M1's: contents are lists of parts, a tool's with its name, and calls are left out.
const MINIMAX: &str = "{% set ns = namespace(system_prompt='') -%}{% for message in messages -%}{% if message['role'] == 'system' -%}\
    {% set ns.system_prompt = ns.system_prompt + message['content'][0]['text'] -%}{% endif -%}{%- endfor -%}\
    {% if ns.system_prompt != '' -%}{{ 'system ' + ns.system_prompt + '\\n' -}}{%- endif -%}\
    {% if tools -%}{{ '<tools>' -}}{{ tools[0] | tojson -}}{{ '</tools>\\n<tool_calls>\\n{''\"name\"'': <tool-name-1>, \
    ''\"arguments\"'': <args-json-object-1>}\\n</tool_calls>\\n' -}}{%- endif -%}\
    {% for message in messages -%}{% if message['role'] == 'user' -%}{{ 'user ' + message['content'][0]['text'] + '\\n' -}}\
    {% elif message['role'] == 'assistant' -%}{{ 'ai ' -}}{% for content in message['content'] | selectattr('type', 'equalto', 'text') -%}\
    {{ content['text'] -}}{%- endfor -%}{{ '\\n' -}}{% elif message['role'] == 'tool' -%}{%- for content in message['content'] -%}\
    {{- 'tool name: ' + content['name'] + '\\n' + 'tool result: ' + content['text'] + '\\n' -}}{%- endfor -%}{% endif -%}{%- endfor -%}";

#[test]
fn minimax_m1_is_given_parts_and_the_calls_that_its_template_leaves_out() {
    let template = ChatTemplate::new(MINIMAX, tokens(), &Rendering::Within).unwrap();
    assert_eq!(template.tool_format(), ToolFormat::MiniMaxM1);
    let mut conversation = weather(MINIMAX);
    conversation.messages[2].tool_call_id = Some("call_1".into());
    let prompt = template.render(&conversation).unwrap();
    assert!(prompt.starts_with("<tools>{\"type\": "), "{prompt}");
    let end = "user How warm?\nai <tool_calls>\n{\"name\":\"weather\",\"arguments\":{\"city\":\"Köln\",\"days\":2}}\n</tool_calls>\n\
        tool name: weather\ntool result: 9\n";
    assert!(prompt.ends_with(end), "{prompt}");
    let plain = template.render(&messages(&[("system", "Be brief."), ("user", "Hi")])).unwrap();
    assert_eq!(plain, "system Be brief.\nuser Hi\n");
}

/// The assistant's part of GPT-OSS's.
const GPT_OSS: &str = r#"{%- if tools %}{{ tools | length }}{%- endif %}{%- for message in messages %}
{%- if message.role == 'assistant' %}
{%- if "<|channel|>final" in message.content %}{{- raise_exception("no channels") }}{%- endif %}
{%- if "tool_calls" in message %}{%- set call = message.tool_calls[0].function %}
{%- if message.content and message.thinking %}{{- raise_exception("one of them") }}{%- endif %}
{%- if message.thinking %}{{- "<|start|>assistant<|channel|>analysis<|message|>" + message.thinking + "<|end|>" }}{%- endif %}
{{- "<|start|>assistant to=functions." + call.name + "<|channel|>commentary json<|message|>" }}{{- call.arguments | tojson }}{{- "<|call|>" }}
{%- else %}{{- "<|start|>assistant<|channel|>final<|message|>" + message.content + "<|end|>" }}{%- endif %}
{%- else %}{{- "<|start|>" + message.role + "<|message|>" + message.content + "<|end|>" }}{%- endif %}{%- endfor %}"#;

#[test]
fn gpt_oss_is_given_thoughts_under_its_own_name() {
    let template = ChatTemplate::new(GPT_OSS, tokens(), &Rendering::Within).unwrap();
    assert_eq!(template.tool_format(), ToolFormat::Harmony);
    let mut conversation = weather(GPT_OSS);
    conversation.messages[1].reasoning_content = Some("Hm.".into());
    conversation.messages[1].content = Some("I look.".into());
    conversation.messages.truncate(2);
    let called = "<|start|>assistant<|channel|>analysis<|message|>Hm.\nI look.<|end|>\
        <|start|>assistant to=functions.weather<|channel|>commentary json<|message|>{\"city\": \"Köln\", \"days\": 2}<|call|>";
    assert!(template.render(&conversation).unwrap().ends_with(called));
    conversation.messages[1].content = None;
    conversation.messages[1].reasoning_content = None;
    let called =
        "How warm?<|end|><|start|>assistant to=functions.weather<|channel|>commentary json<|message|>";
    assert!(template.render(&conversation).unwrap().contains(called));
}
