//! Fields that a ModelDeployment does not have. An API server drops them with a warning; a plan would be one of something
//! else than was meant.

use anyhow::{Result, bail};
use coterie_operator_core::crd;
use serde_json::Value;

/// From this similarity on (Jaro-Winkler, 1 is equal) a name may have been meant.
const SIMILAR: f64 = 0.8;

/// An error that names the first field that the schema of the CustomResourceDefinition does not know, and the one that
/// was meant, if one is near.
pub fn check(written: &Value) -> Result<()> {
    let definition = serde_json::to_value(crd())?;
    let known = &definition["spec"]["versions"][0]["schema"]["openAPIV3Schema"];
    // What every object has; only its names are left to the API server.
    let own = |key: &str| !matches!(key, "apiVersion" | "kind" | "metadata" | "status");
    for (key, value) in written.as_object().into_iter().flatten().filter(|(key, _)| own(key)) {
        walk(value, field(known, "", key)?, key)?;
    }
    Ok(())
}

fn walk(value: &Value, schema: &Value, path: &str) -> Result<()> {
    match value {
        Value::Object(fields) => {
            for (key, value) in fields {
                walk(value, field(schema, path, key)?, &format!("{path}.{key}"))?;
            }
            Ok(())
        }
        Value::Array(items) => {
            let mut items = items.iter().enumerate();
            items.try_for_each(|(at, item)| walk(item, &schema["items"], &format!("{path}[{at}]")))
        }
        _ => Ok(()),
    }
}

/// The schema of one field of an object.
fn field<'a>(schema: &'a Value, path: &str, key: &str) -> Result<&'a Value> {
    // Any name goes: labels, or what is of somebody else's definition.
    let Some(properties) = schema["properties"].as_object() else {
        return Ok(&schema["additionalProperties"]);
    };
    if let Some(known) = properties.get(key) {
        return Ok(known);
    }
    if schema["x-kubernetes-preserve-unknown-fields"] == true {
        return Ok(&Value::Null);
    }
    let dot = if path.is_empty() { "" } else { "." };
    let alike = properties.keys().map(|known| (strsim::jaro_winkler(known, key), known));
    match alike.max_by(|one, other| one.0.total_cmp(&other.0)).filter(|(alike, _)| *alike >= SIMILAR) {
        Some((_, meant)) => bail!("{path}{dot}{key} is no field; is {path}{dot}{meant} meant?"),
        None => {
            let known: Vec<&str> = properties.keys().map(String::as_str).collect();
            bail!("{path}{dot}{key} is no field; there are {}", known.join(", "))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(spec: &str) -> String {
        let written = format!("kind: ModelDeployment\nmetadata: {{labels: {{any: x}}}}\nspec: {spec}");
        let written: Value = serde_saphyr::from_str(&written).unwrap();
        check(&written).err().map(|error| error.to_string()).unwrap_or_default()
    }

    #[test]
    fn a_wrong_field_is_named_with_the_one_that_is_near() {
        assert_eq!(told("{replicas: 1, experts: {redundant: 2}}"), "");
        assert_eq!(told("{rank: 2}"), "spec.rank is no field; is spec.ranks meant?");
        assert_eq!(
            told("{experts: {redundent: 2}}"),
            "spec.experts.redundent is no field; is spec.experts.redundant meant?"
        );
        let far = told("{experts: {zzz: 2}}");
        assert!(
            far.starts_with("spec.experts.zzz is no field; there are ") && far.contains("rebalance"),
            "{far}"
        );
        let template = "{template: {nodeSelector: {pool: a}, tolerations: [{key: a, operater: Exists}]}}";
        assert_eq!(
            told(template),
            "spec.template.tolerations[0].operater is no field; is spec.template.tolerations[0].operator meant?"
        );
    }

    #[test]
    fn a_wrong_field_beside_the_spec_is_named() {
        let written: Value = serde_saphyr::from_str("kind: ModelDeployment\nspeck: {}").unwrap();
        assert_eq!(check(&written).unwrap_err().to_string(), "speck is no field; is spec meant?");
    }
}
