//! Watching a ModelDeployment become Ready: a line for every change a person would see with kubectl.

use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use serde_json::Value;

use crate::kube::Kube;
use crate::step::seconds;

/// Prints each new reason until Ready is true. Fails after `limit` with what was missing.
pub fn until_ready(kube: &Kube, deployment: &str, applied: Instant, limit: Duration) -> Result<()> {
    let mut shown = String::new();
    loop {
        let object: Value = serde_json::from_str(&kube.kubectl(&["get", "mdep", deployment, "-o", "json"])?)?;
        let (ready, line) = readiness(&object);
        if line != shown {
            eprintln!("    {:>7}  {line}", seconds(applied.elapsed()));
            shown = line;
        }
        if ready {
            return Ok(());
        }
        if applied.elapsed() > limit {
            bail!("{deployment} is not Ready after {}: {shown}", seconds(limit));
        }
        thread::sleep(Duration::from_millis(200));
    }
}

/// Whether the Ready condition of the newest generation is true, and what it says.
fn readiness(object: &Value) -> (bool, String) {
    let current = object["status"]["observedGeneration"] == object["metadata"]["generation"];
    let conditions = object["status"]["conditions"].as_array();
    match conditions.into_iter().flatten().find(|c| c["type"] == "Ready").filter(|_| current) {
        Some(ready) => {
            let text = |key: &str| ready[key].as_str().unwrap_or_default();
            (
                ready["status"] == "True",
                format!("Ready={} {}: {}", text("status"), text("reason"), text("message")),
            )
        }
        None => (false, "the operator has not answered yet".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn an_older_generation_does_not_count() {
        let mut object = json!({
            "metadata": {"generation": 2},
            "status": {"observedGeneration": 1, "conditions": [
                {"type": "Ready", "status": "True", "reason": "AsAsked", "message": "1 of 1"},
            ]},
        });
        assert!(!readiness(&object).0);
        object["status"]["observedGeneration"] = json!(2);
        assert_eq!(readiness(&object), (true, "Ready=True AsAsked: 1 of 1".to_owned()));
    }
}
