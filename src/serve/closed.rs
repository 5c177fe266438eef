//! Schemas whose objects have no members but those that they list, where they leave that open.
//!
//! A model that is free to invent members may never stop doing so; what lacks them still keeps to the
//! schema. Where parts of a schema hold for the same object, each may list what the other does not, and
//! all is left as it is.

use serde_json::{Map, Value};

/// Keywords by which a schema says which members there may be besides those that it lists.
const OPENERS: [&str; 6] = [
    "additionalProperties",
    "unevaluatedProperties",
    "patternProperties",
    "propertyNames",
    "minProperties",
    "dependentSchemas",
];
/// Keywords by which other schemas hold for the same value.
const JOINERS: [&str; 6] = ["$ref", "anyOf", "oneOf", "allOf", "if", "not"];
/// Keywords whose values are schemas by name, lists of schemas, and single ones.
const MAPS: [&str; 3] = ["properties", "$defs", "definitions"];
const LISTS: [&str; 4] = ["anyOf", "oneOf", "allOf", "prefixItems"];
const SINGLE: [&str; 1] = ["items"];

/// The schema with its objects closed, if that takes nothing away that is asked for.
pub(super) fn closed(schema: &Value) -> Value {
    if all(schema, &|fields| !is_joined(fields)) { close(schema) } else { schema.clone() }
}

/// Whether several lists of members may hold for one object.
fn is_joined(fields: &Map<String, Value>) -> bool {
    let joiners = JOINERS.iter().filter(|name| fields.contains_key(**name)).count();
    let several = fields.get("allOf").and_then(Value::as_array).is_some_and(|parts| parts.len() > 1);
    let has_members = ["properties", "required"].iter().any(|name| fields.contains_key(*name));
    several
        || joiners > 1
        || (joiners > 0 && has_members)
        || ["if", "not"].iter().any(|n| fields.contains_key(*n))
}

/// The schemas right inside of one.
fn inside(fields: &Map<String, Value>) -> impl Iterator<Item = &Value> {
    let maps = MAPS.iter().filter_map(|name| fields.get(*name)?.as_object()).flat_map(Map::values);
    let lists = LISTS.iter().filter_map(|name| fields.get(*name)?.as_array()).flatten();
    maps.chain(lists).chain(SINGLE.iter().filter_map(|name| fields.get(*name)))
}

/// Whether something holds for a schema and all within it.
fn all(schema: &Value, holds: &dyn Fn(&Map<String, Value>) -> bool) -> bool {
    let Value::Object(fields) = schema else { return true };
    holds(fields) && inside(fields).all(|schema| all(schema, holds))
}

fn close(schema: &Value) -> Value {
    let Value::Object(fields) = schema else { return schema.clone() };
    let mut fields = fields.clone();
    for (name, value) in &mut fields {
        match value {
            Value::Object(named) if MAPS.contains(&name.as_str()) => {
                named.values_mut().for_each(|value| *value = close(value));
            }
            Value::Array(list) if LISTS.contains(&name.as_str()) => {
                list.iter_mut().for_each(|value| *value = close(value));
            }
            value if SINGLE.contains(&name.as_str()) => *value = close(value),
            _ => {}
        }
    }
    let listed = fields.get("properties").and_then(Value::as_object).filter(|listed| !listed.is_empty());
    let asked = fields.get("required").and_then(Value::as_array);
    let lists_all = |listed: &Map<String, Value>| {
        asked.into_iter().flatten().all(|name| name.as_str().is_some_and(|name| listed.contains_key(name)))
    };
    let is_open = listed.is_some_and(lists_all) && !OPENERS.iter().any(|name| fields.contains_key(*name));
    if is_open {
        fields.insert("additionalProperties".into(), false.into());
    }
    Value::Object(fields)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn objects_that_list_members_have_no_others() {
        let listed = |more: Value| {
            let mut schema = json!({"type": "object", "properties": {"a": {}}});
            schema.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
            schema
        };
        let shut = || listed(json!({"additionalProperties": false}));
        for (schema, expected) in [
            (listed(json!({})), shut()),
            (
                listed(json!({"required": ["a"]})),
                listed(json!({"required": ["a"], "additionalProperties": false})),
            ),
            (json!({"items": listed(json!({}))}), json!({"items": shut()})),
            (json!({"$defs": {"properties": listed(json!({}))}}), json!({"$defs": {"properties": shut()}})),
            (
                json!({"anyOf": [listed(json!({})), {"type": "null"}]}),
                json!({"anyOf": [shut(), {"type": "null"}]}),
            ),
            (json!({"allOf": [listed(json!({}))]}), json!({"allOf": [shut()]})),
        ] {
            assert_eq!(closed(&schema), expected);
        }
    }

    #[test]
    fn what_is_asked_for_is_not_taken_away() {
        for schema in [
            json!({"type": "object"}),
            json!({"type": "object", "properties": {"a": {}}, "required": ["b"]}),
            json!({"properties": {"a": {}}, "additionalProperties": {"type": "string"}}),
            json!({"properties": {"a": {}}, "patternProperties": {"^x": {}}}),
            json!({"properties": {"a": {}}, "minProperties": 2}),
            json!({"allOf": [{"properties": {"a": {}}}, {"properties": {"b": {}}, "required": ["b"]}]}),
            json!({"$ref": "#/$defs/x", "properties": {"a": {}}, "$defs": {"x": {"properties": {"b": {}}}}}),
            json!({"anyOf": [{"properties": {"a": {}}}], "required": ["b"]}),
            json!({"not": {"properties": {"a": {}}}, "$defs": {"x": {"properties": {"b": {}}}}}),
            json!({"enum": [{"properties": {"a": {}}}]}),
        ] {
            assert_eq!(closed(&schema), schema);
        }
    }
}
