//! The CustomResourceDefinition as it is installed.

use super::ModelDeployment;
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::{
    CustomResourceDefinition, JSONSchemaProps, JSONSchemaPropsOrArray, JSONSchemaPropsOrBool,
};
use kube::CustomResourceExt;

/// The definition with a schema that the API server takes without warnings.
///
/// Two things are changed from what the derive macros write: an absent field is never `null` (the API server then
/// prunes nulls, so `has()` in a CEL rule means what it says), and the unsigned formats of Rust, which Kubernetes
/// does not know, become `int64`.
pub fn crd() -> CustomResourceDefinition {
    let mut crd = ModelDeployment::crd();
    for version in &mut crd.spec.versions {
        if let Some(schema) = version.schema.as_mut().and_then(|s| s.open_api_v3_schema.as_mut()) {
            tidy(schema);
        }
    }
    crd
}

fn tidy(schema: &mut JSONSchemaProps) {
    schema.nullable = None;
    if schema.format.as_deref().is_some_and(|format| format.starts_with("uint")) {
        schema.format = Some("int64".to_owned());
    }
    for property in schema.properties.iter_mut().flat_map(|properties| properties.values_mut()) {
        tidy(property);
    }
    if let Some(JSONSchemaPropsOrArray::Schema(items)) = &mut schema.items {
        tidy(items);
    }
    if let Some(JSONSchemaPropsOrBool::Schema(values)) = &mut schema.additional_properties {
        tidy(values);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::condition::PARTS;
    use crate::deployment::{ModelDeploymentSpec, NAME_LIMIT};
    use serde_json::{Value, json};

    fn schema() -> Value {
        let crd = serde_json::to_value(crd()).unwrap();
        crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"].clone()
    }

    #[test]
    fn schema_has_no_null_and_no_unsigned_format() {
        let text = schema().to_string();
        assert!(!text.contains("nullable"), "{text}");
        assert!(!text.contains("\"uint"), "{text}");
    }

    #[test]
    fn scale_names_and_columns_are_published() {
        let crd = serde_json::to_value(crd()).unwrap();
        let version = &crd["spec"]["versions"][0];
        let scale = json!({
            "specReplicasPath": ".spec.replicas",
            "statusReplicasPath": ".status.replicas",
            "labelSelectorPath": ".status.selector"
        });
        assert_eq!(version["subresources"], json!({ "scale": scale, "status": {} }));
        assert_eq!(crd["spec"]["names"]["shortNames"], json!(["mdep"]));
        assert_eq!(crd["spec"]["names"]["categories"], json!(["all", "ai"]));
        let columns = version["additionalPrinterColumns"].as_array().unwrap();
        let names: Vec<&str> = columns.iter().filter_map(|column| column["name"].as_str()).collect();
        let always = ["Ready", "Reason", "Replicas", "Ranks", "Experts", "Queue", "Age"];
        let wide = ["Model", "Quantization", "Context", "Digest"];
        assert_eq!(names, [&always[..], &wide].concat());
        assert!(columns.iter().skip(always.len()).all(|column| column["priority"] == 1), "wide only");
    }

    /// Every path of a column, and of the scale subresource, leads to a field of the schema.
    #[test]
    fn paths_lead_to_fields() {
        let version = serde_json::to_value(crd()).unwrap()["spec"]["versions"][0].clone();
        let columns = version["additionalPrinterColumns"].as_array().unwrap();
        let scale = version["subresources"]["scale"].as_object().unwrap();
        let paths = columns.iter().map(|column| &column["jsonPath"]).chain(scale.values());
        let paths: Vec<&str> =
            paths.filter_map(Value::as_str).filter(|path| !path.starts_with(".metadata")).collect();
        assert_eq!(paths.len(), 13);
        for path in paths {
            // A filter picks an item of a list.
            let path = path.replace(r#"[?(@.type=="Ready")]"#, ".[]");
            let mut at = schema();
            for field in path.split('.').filter(|field| !field.is_empty()) {
                at = if field == "[]" { at["items"].clone() } else { at["properties"][field].clone() };
            }
            assert!(at.get("type").is_some(), "{path}");
        }
    }

    #[test]
    fn conditions_are_a_map_by_type() {
        let conditions = &schema()["properties"]["status"]["properties"]["conditions"];
        assert_eq!(conditions["x-kubernetes-list-type"], "map");
        assert_eq!(conditions["x-kubernetes-list-map-keys"], json!(["type"]));
        assert_eq!(PARTS.len(), 5);
    }

    #[test]
    fn the_rule_on_names_knows_the_limit() {
        let rules = schema()["x-kubernetes-validations"].to_string();
        assert!(rules.contains(&format!("<= {NAME_LIMIT}")), "{rules}");
    }

    #[test]
    fn defaults_of_the_schema_are_those_of_the_types() {
        let source = json!({ "image": { "reference": "a/b:1" } });
        let spec: ModelDeploymentSpec =
            serde_json::from_value(json!({ "model": { "source": source } })).unwrap();
        let schema = schema();
        let fields = &schema["properties"]["spec"]["properties"];
        for field in ["accelerator", "replicas", "rollout", "template"] {
            assert_eq!(serde_json::to_value(&spec).unwrap()[field], fields[field]["default"], "{field}");
        }
    }
}
