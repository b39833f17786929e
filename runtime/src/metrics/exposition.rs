//! The two text forms in which Prometheus reads metrics.

/// A text form of metrics.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exposition {
    /// OpenMetrics 1.0, for those who ask for it, as Prometheus does.
    OpenMetrics,
    /// Prometheus' own, version 0.0.4: what everybody else reads.
    Plain,
}

impl Exposition {
    /// The form that a request's `Accept` header asks for. Scrapers that know OpenMetrics name it first, so weights
    /// are not looked at.
    pub fn wanted(accept: Option<&str>) -> Exposition {
        if accept.is_some_and(|accept| accept.contains("application/openmetrics-text")) {
            Exposition::OpenMetrics
        } else {
            Exposition::Plain
        }
    }

    /// The `Content-Type` of this form.
    pub fn content_type(self) -> &'static str {
        match self {
            Exposition::OpenMetrics => "application/openmetrics-text; version=1.0.0; charset=utf-8",
            Exposition::Plain => "text/plain; version=0.0.4; charset=utf-8",
        }
    }
}

/// What is OpenMetrics, in Prometheus' own form: there a counter's family is named like its samples, and nothing marks
/// the end. A parser that takes the difference seriously would see counters without a type.
pub(super) fn plain(open_metrics: &str) -> String {
    let mut text = String::with_capacity(open_metrics.len() + 1024);
    let mut help = None;
    for line in open_metrics.lines() {
        if line.starts_with("# HELP ") {
            // Only the next line says whether this is a counter.
            help = Some(line);
        } else if let Some(name) = line.strip_prefix("# TYPE ").and_then(|rest| rest.strip_suffix(" counter"))
        {
            let told = help.take().and_then(|help| help.strip_prefix("# HELP ")?.strip_prefix(name));
            told.into_iter().for_each(|told| push(&mut text, &["# HELP ", name, "_total", told]));
            push(&mut text, &["# TYPE ", name, "_total counter"]);
        } else if line != "# EOF" {
            help.take().into_iter().for_each(|help| push(&mut text, &[help]));
            push(&mut text, &[line]);
        }
    }
    text
}

fn push(text: &mut String, parts: &[&str]) {
    parts.iter().for_each(|part| text.push_str(part));
    text.push('\n');
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_who_asks_for_openmetrics_gets_it() {
        let prometheus =
            "application/openmetrics-text;version=1.0.0;q=0.5,text/plain;version=0.0.4;q=0.2,*/*;q=0.1";
        assert_eq!(Exposition::wanted(Some(prometheus)), Exposition::OpenMetrics);
        for other in [None, Some("*/*"), Some("text/plain;version=0.0.4")] {
            assert_eq!(Exposition::wanted(other), Exposition::Plain);
        }
    }

    #[test]
    fn in_the_plain_form_a_counter_is_named_like_its_samples() {
        let open =
            "# HELP a Things.\n# TYPE a counter\na_total 1\n# HELP b Now.\n# TYPE b gauge\nb 2\n# EOF\n";
        let expected =
            "# HELP a_total Things.\n# TYPE a_total counter\na_total 1\n# HELP b Now.\n# TYPE b gauge\nb 2\n";
        assert_eq!(plain(open), expected);
    }
}
