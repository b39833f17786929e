use super::*;
use coterie_api::load::Kind;
use coterie_engine::Counts;
use std::time::{Duration, Instant};

fn lines(metrics: &Metrics, load: Load) -> Vec<String> {
    metrics.text(load, Exposition::Plain).lines().map(str::to_owned).collect()
}

#[track_caller]
fn assert_has(lines: &[String], line: &str) {
    assert!(lines.iter().any(|l| l == line), "{line} is not in\n{}", lines.join("\n"));
}

#[test]
fn every_metric_is_exported_as_it_is_declared_and_no_other() {
    let lines = lines(&Metrics::new("m", &ExchangeCounts::default()), Load::default());
    let types: Vec<&String> = lines.iter().filter(|line| line.starts_with("# TYPE ")).collect();
    let mut declared = 0;
    for metric in load::ALL {
        let (suffix, kind) = match metric.kind {
            Kind::Gauge => ("", "gauge"),
            Kind::Counter => ("_total", "counter"),
            Kind::Histogram => ("", "histogram"),
        };
        for name in metric.vllm.iter().chain([&metric.name]) {
            assert_has(&lines, &format!("# HELP {name}{suffix} {}.", metric.meaning));
            assert_has(&lines, &format!("# TYPE {name}{suffix} {kind}"));
            declared += 1;
        }
    }
    assert_eq!(types.len(), declared, "{types:?}");
}

#[test]
fn a_value_is_the_same_under_our_name_and_under_vllms() {
    let metrics = Metrics::new("smol-moe", &ExchangeCounts::default());
    metrics.count(Outcome::Length);
    metrics.count(Outcome::Cancelled);
    metrics.time_to_first_token.observe(Duration::from_millis(300));
    let scheduled = Counts {
        prompt_tokens: 9,
        started: 3,
        started_tokens: 12,
        cached_tokens: 4,
        preemptions: 2,
        drafts: 5,
        draft_tokens: 31,
        accepted_tokens: 17,
    };
    let load = Load {
        waiting: 3,
        running: 2,
        waiting_tokens: 70,
        prefilling_tokens: 30,
        kv_usage: 0.25,
        scheduled,
        generated_tokens: 7,
    };
    let lines = lines(&metrics, load);
    let vllm = "model_name=\"smol-moe\",engine=\"0\"";
    for (ours, theirs, value) in [
        ("coterie_requests_waiting", "num_requests_waiting", "3"),
        ("coterie_requests_running", "num_requests_running", "2"),
        ("coterie_kv_cache_usage_ratio", "kv_cache_usage_perc", "0.25"),
        ("coterie_prompt_tokens_total", "prompt_tokens_total", "12"),
        ("coterie_prompt_tokens_total", "prefix_cache_queries_total", "12"),
        ("coterie_prompt_tokens_cached_total", "prefix_cache_hits_total", "4"),
        ("coterie_generation_tokens_total", "generation_tokens_total", "7"),
        ("coterie_preemptions_total", "num_preemptions_total", "2"),
        ("coterie_drafts_total", "spec_decode_num_drafts_total", "5"),
        ("coterie_draft_tokens_total", "spec_decode_num_draft_tokens_total", "31"),
        ("coterie_draft_tokens_accepted_total", "spec_decode_num_accepted_tokens_total", "17"),
        ("coterie_time_to_first_token_seconds_sum", "time_to_first_token_seconds_sum", "0.3"),
    ] {
        assert_has(&lines, &format!("{ours} {value}"));
        assert_has(&lines, &format!("vllm:{theirs}{{{vllm}}} {value}"));
    }
    assert_has(&lines, "coterie_waiting_tokens 70");
    assert_has(&lines, "coterie_prompt_tokens_computed_total 9");
    assert_has(&lines, "coterie_requests_total{outcome=\"length\"} 1");
    assert_has(&lines, "coterie_requests_total{outcome=\"rejected\"} 0");
    assert_has(&lines, &format!("vllm:request_success_total{{{vllm},finished_reason=\"length\"}} 1"));
    assert_has(&lines, &format!("vllm:request_success_total{{{vllm},finished_reason=\"abort\"}} 1"));
    assert_has(&lines, &format!("vllm:time_to_first_token_seconds_bucket{{{vllm},le=\"0.5\"}} 1"));
}

#[test]
fn what_loading_took_is_told_when_it_is_done() {
    let metrics = Metrics::new("m", &ExchangeCounts::default());
    assert_has(&lines(&metrics, Load::default()), "coterie_weights_read_bytes 0");
    metrics.set_loaded(Loaded { bytes: 3 << 30, time: Duration::from_millis(1500) });
    let lines = lines(&metrics, Load::default());
    assert_has(&lines, "coterie_weights_loaded_ratio 1.0");
    assert_has(&lines, "coterie_weights_read_bytes 3221225472");
    assert_has(&lines, "coterie_weights_load_seconds 1.5");
}

#[test]
fn a_scrape_with_older_figures_takes_no_counter_back() {
    let metrics = Metrics::new("m", &ExchangeCounts::default());
    lines(&metrics, Load { generated_tokens: 7, ..Load::default() });
    assert_has(&lines(&metrics, Load::default()), "coterie_generation_tokens_total 7");
}

#[test]
fn an_observation_on_a_bound_is_below_it() {
    let metrics = Metrics::new("m", &ExchangeCounts::default());
    for tokens in [1, 2, 3, 2_000_000] {
        metrics.answers.prompt_tokens.observe_number(tokens);
    }
    let lines = lines(&metrics, Load::default());
    for line in
        ["bucket{le=\"1.0\"} 1", "bucket{le=\"2.0\"} 2", "bucket{le=\"5.0\"} 3", "bucket{le=\"+Inf\"} 4"]
    {
        assert_has(&lines, &format!("coterie_request_prompt_tokens_{line}"));
    }
    assert_has(&lines, "coterie_request_prompt_tokens_sum 2000006.0");
}

#[test]
fn an_answers_time_is_split_at_its_first_step_and_its_first_token() {
    let at = Instant::now();
    let mut timing = Timing::new(at);
    timing.start(at + Duration::from_secs(1));
    for second in [3, 4, 7] {
        timing.token(at + Duration::from_secs(second));
    }
    let metrics = Metrics::new("m", &ExchangeCounts::default());
    metrics.observe_answer(&timing, 5, 3);
    let lines = lines(&metrics, Load::default());
    for line in [
        "coterie_prefill_time_seconds_sum 2.0",
        "coterie_decode_time_seconds_sum 4.0",
        "coterie_time_per_output_token_seconds_sum 2.0",
        "coterie_request_time_seconds_sum 7.0",
        "coterie_request_generation_tokens_sum 3.0",
    ] {
        assert_has(&lines, line);
    }
}
