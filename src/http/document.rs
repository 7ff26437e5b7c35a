//! The last touches on the OpenAPI document, where what the macros write is not what is meant.

use utoipa::openapi::content::Content;
use utoipa::openapi::path::{Operation, Parameter};
use utoipa::openapi::schema::{Object, SchemaType, Type};
use utoipa::openapi::{Components, OpenApi, RefOr, Schema};

use super::examples;

/// Corrects the document as a whole.
pub fn finish(mut document: OpenApi) -> OpenApi {
    if let Some(components) = &mut document.components {
        merge_flattened(components);
    }
    for item in document.paths.paths.values_mut() {
        let operations =
            [&mut item.get, &mut item.put, &mut item.post, &mut item.delete].into_iter().flatten();
        for operation in operations {
            operation.parameters.iter_mut().flatten().for_each(forbid_null);
            add_examples(operation);
        }
    }
    document
}

/// A flattened member is written as `allOf`, in which the inner schema, closed as it is, forbids the
/// members around it. One object with the members of both says what is meant.
fn merge_flattened(components: &mut Components) {
    let merged: Vec<(String, Object)> = components
        .schemas
        .iter()
        .filter(|(_, schema)| matches!(schema, RefOr::T(Schema::AllOf(_))))
        .filter_map(|(name, schema)| Some((name.clone(), merge(schema, components)?)))
        .collect();
    for (name, object) in merged {
        components.schemas.insert(name, RefOr::T(Schema::Object(object)));
    }
}

/// `None` where a part is no object.
fn merge(schema: &RefOr<Schema>, components: &Components) -> Option<Object> {
    match schema {
        RefOr::Ref(reference) => {
            let name = reference.ref_location.rsplit('/').next()?;
            merge(components.schemas.get(name)?, components)
        }
        RefOr::T(Schema::Object(object)) => Some(object.clone()),
        RefOr::T(Schema::AllOf(all_of)) => {
            let mut whole = Object::with_type(Type::Object);
            whole.description.clone_from(&all_of.description);
            // The members of the outer type come last in `allOf`, and first in the answer.
            for part in all_of.items.iter().rev() {
                let part = merge(part, components)?;
                whole.required.extend(part.required);
                whole.properties.extend(part.properties);
            }
            Some(whole)
        }
        RefOr::T(_) => None,
    }
}

fn add_examples(operation: &mut Operation) {
    let Some(id) = operation.operation_id.as_deref() else { return };
    if let (Some(RefOr::T(body)), Some(example)) = (&mut operation.request_body, examples::request(id)) {
        body.content.values_mut().for_each(|content| add_example(content, &example));
    }
    let Some(example) = examples::response(id) else { return };
    for (status, response) in &mut operation.responses.responses {
        // What is accepted rather than answered becomes a job, which has an example of its own.
        if let (true, RefOr::T(response)) = (status.starts_with('2') && status != "202", response) {
            let json =
                response.content.iter_mut().filter(|(media_type, _)| *media_type == "application/json");
            json.for_each(|(_, content)| add_example(content, &example));
        }
    }
}

fn add_example(content: &mut RefOr<Content>, example: &serde_json::Value) {
    if let RefOr::T(content) = content {
        content.example = Some(example.clone());
    }
}

/// A parameter that may be left out is not one that may be null, which neither a path, a query nor a
/// header can say.
fn forbid_null(parameter: &mut RefOr<Parameter>) {
    let RefOr::T(parameter) = parameter else { return };
    let Some(schema) = parameter.schema.take() else { return };
    parameter.schema = Some(match schema {
        RefOr::T(Schema::Object(mut object)) => {
            if let SchemaType::Array(types) = &object.schema_type
                && let [one] = types.iter().filter(|of| **of != Type::Null).collect::<Vec<_>>().as_slice()
            {
                object.schema_type = SchemaType::Type((*one).clone());
            }
            RefOr::T(Schema::Object(object))
        }
        RefOr::T(Schema::OneOf(mut one_of)) => {
            one_of.items.retain(|item| !is_null(item));
            match (one_of.items.len(), one_of.items.pop()) {
                (1, Some(only)) => only,
                (_, last) => {
                    one_of.items.extend(last);
                    RefOr::T(Schema::OneOf(one_of))
                }
            }
        }
        other => other,
    });
}

fn is_null(schema: &RefOr<Schema>) -> bool {
    matches!(schema, RefOr::T(Schema::Object(object)) if object.schema_type == SchemaType::Type(Type::Null))
}
