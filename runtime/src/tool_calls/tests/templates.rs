//! A chat template tells its family's format, and no other.

use super::*;

/// The parts of released templates that are about calls, shortened.
const TEMPLATES: [(&str, Option<ToolFormat>); 19] = [
    (
        r#"{{ "<tool_call>\n{\"name\": <function-name>, \"arguments\": <args-json-object>}" }}"#,
        Some(ToolFormat::Hermes),
    ),
    (r#"{{ "[TOOL_CALLS] [" }}"#, Some(ToolFormat::Mistral)),
    // DeepSeek-V3-0324 and R1.
    (
        r#"{{'<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>' + tool['type'] + '<｜tool▁sep｜>' + tool['function']['name'] + '\n' + '```json' + '\n' + tool['function']['arguments'] + '\n' + '```' + '<｜tool▁call▁end｜>'}}"#,
        Some(ToolFormat::DeepSeekV3),
    ),
    // DeepSeek-V3.1.
    (
        r#"{{'<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>'+ tool['function']['name'] + '<｜tool▁sep｜>' + tool['function']['arguments'] + '<｜tool▁call▁end｜>'}}"#,
        Some(ToolFormat::DeepSeekV31),
    ),
    (
        r"{{ '<tool_call>\n<function=' + tool_call.name + '>\n' }}{{ '<parameter=' + args_name + '>\n' }}{{ arguments }}",
        Some(ToolFormat::QwenCoder),
    ),
    (
        r#"{{ 'respond with <tool_calls></tool_calls> XML tags\n<tool_calls>\n{''"name"'': <tool-name-1>, ''"arguments"'': <args-json-object-1>}' }}"#,
        Some(ToolFormat::MiniMaxM1),
    ),
    (
        r#"{%- set toolcall_begin_token = '<minimax:tool_call>' -%}{{- '<invoke name="' + tool_call.name + '">\n' }}<parameter name="param-key-1">{{ arguments }}"#,
        Some(ToolFormat::MiniMaxM2),
    ),
    (
        "<tool_call>{function-name}\n<arg_key>{arg-key-1}</arg_key>\n<arg_value>{arg-value-1}</arg_value>{{ tc.arguments }}",
        Some(ToolFormat::Glm),
    ),
    (
        r#"{{- "<|start|>assistant to=" }}{{- "functions." + tool_call.name + "<|channel|>commentary " }}{{- "json<|message|>" }}{{- "<|start|>assistant<|channel|>analysis<|message|>" }}"#,
        Some(ToolFormat::Harmony),
    ),
    ("{{ messages }}", None),
    ("[TOOL_CALLS]name[ARGS]{", None),
    // Jamba, Hunyuan.
    ("<tool_calls>[{\"name\": \"\", \"arguments\": {}}]</tool_calls>", None),
    // Seed-OSS.
    ("<seed:tool_call>\n<function=name>\n<parameter=a>", None),
    // Kimi-K2.
    ("<|tool_calls_section_begin|><|tool_call_begin|>{id}<|tool_call_argument_begin|>{arguments}", None),
    // DeepSeek-V3.2.
    (
        "<｜DSML｜function_calls>\n<｜DSML｜invoke name=\"f\">\n<｜DSML｜parameter name=\"a\" string=\"true\">",
        None,
    ),
    // Gemma 4, ChatGLM, Llama 3.
    ("<|channel>thought<|tool_call>call:f{}", None),
    ("<|assistant|>{metadata}\n{arguments}", None),
    ("{\"name\": function name, \"parameters\": dictionary}", None),
    // MiniMax-M3.
    ("]<]minimax[>[<tool_call>", None),
];

#[test]
fn a_template_tells_its_format() {
    for (template, expected) in TEMPLATES {
        let found: Vec<_> = FORMATS.into_iter().filter(|format| format.signs().are_in(template)).collect();
        assert_eq!(found, expected.into_iter().collect::<Vec<_>>(), "{template}");
        assert_eq!(ToolFormat::of_template(template), expected);
    }
    assert_eq!(ToolFormat::Mistral.call_id(u64::MAX), "fffffffff");
    assert_eq!(ToolFormat::Glm.call_id(10), "call_000000000000000a");
}
