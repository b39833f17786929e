//! Schemas of fields that hold Kubernetes' own types: only what is needed of them, with list types and limits.

use schemars::{Schema, SchemaGenerator, json_schema};

/// A quantity as Kubernetes writes it: digits, then a decimal or binary suffix or an exponent.
const QUANTITY_PATTERN: &str =
    r"^\+?(([0-9]+(\.[0-9]*)?)|(\.[0-9]+))(([KMGTPE]i)|[numkMGTPE]|([eE](\+|-)?[0-9]+))?$";

/// Conditions, one per type.
pub fn conditions(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "description": "What is true about the deployment; Ready sums up the others.",
        "type": "array",
        "x-kubernetes-list-type": "map",
        "x-kubernetes-list-map-keys": ["type"],
        "items": {
            "type": "object",
            "required": ["type", "status", "lastTransitionTime", "reason", "message"],
            "properties": {
                "type": { "type": "string", "maxLength": 316, "description": "Name of the condition." },
                "status": { "type": "string", "enum": ["True", "False", "Unknown"] },
                "reason": { "type": "string", "minLength": 1, "maxLength": 1024,
                    "description": "Why, for programs: one of the published constants." },
                "message": { "type": "string", "maxLength": 32768,
                    "description": "Why, for people, and what to do about it." },
                "lastTransitionTime": { "type": "string", "format": "date-time",
                    "description": "When the status became what it is." },
                "observedGeneration": { "type": "integer", "format": "int64", "minimum": 0,
                    "description": "The generation of the spec that this was concluded from." }
            }
        }
    })
}

/// Resource names and quantities.
pub fn quantities(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "type": "object",
        "maxProperties": 16,
        "additionalProperties": {
            "x-kubernetes-int-or-string": true,
            "pattern": QUANTITY_PATTERN
        }
    })
}

/// A number of requests, or `Auto`; a rule beside the field says which.
pub fn queue_target(_: &mut SchemaGenerator) -> Schema {
    json_schema!({ "x-kubernetes-int-or-string": true, "maxLength": 16, "default": "Auto" })
}

/// Pod tolerations.
pub fn tolerations(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "description": "Taints that do not keep the pods away.",
        "type": "array",
        "maxItems": 64,
        "x-kubernetes-list-type": "atomic",
        "items": {
            "type": "object",
            "properties": {
                "key": { "type": "string", "description": "Taint key; all keys when empty." },
                "operator": { "type": "string", "enum": ["Exists", "Equal"] },
                "value": { "type": "string" },
                "effect": { "type": "string", "enum": ["NoSchedule", "PreferNoSchedule", "NoExecute"] },
                "tolerationSeconds": { "type": "integer", "format": "int64" }
            }
        }
    })
}

/// Names of pull secrets.
pub fn image_pull_secrets(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "description": "Secrets with which images (weights and runtime) are pulled.",
        "type": "array",
        "maxItems": 16,
        "x-kubernetes-list-type": "map",
        "x-kubernetes-list-map-keys": ["name"],
        "items": {
            "type": "object",
            "required": ["name"],
            "properties": { "name": { "type": "string", "minLength": 1, "maxLength": 253 } }
        }
    })
}

/// RFC 3339, seconds.
pub fn time(_: &mut SchemaGenerator) -> Schema {
    json_schema!({ "type": "string", "format": "date-time" })
}
