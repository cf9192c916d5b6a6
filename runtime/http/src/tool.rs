//! Tools that a model may call, in the three forms that the endpoints have for them.

use serde_json::{Value, json};

use crate::error::{ApiError, Result};
use crate::read::Fields;

/// Largest number of tools.
const MAX_TOOLS: usize = 128;

/// A call of a tool by the model.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ToolCall {
    /// The function's name.
    pub name: String,
    /// Its arguments, as JSON text.
    pub arguments: String,
}

/// A function that the model may call.
#[derive(Clone, Debug, PartialEq)]
pub struct Tool {
    /// Its name.
    pub name: String,
    /// What it does.
    pub description: String,
    /// JSON schema of its arguments.
    pub parameters: Value,
}

/// Which tools the model may or must call.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum ToolChoice {
    /// As the model likes.
    #[default]
    Auto,
    /// None.
    Never,
    /// Any, but one.
    Required,
    /// This one.
    Named(String),
}

/// How an endpoint writes its tools.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Shape {
    /// `{"type": "function", "function": {"name", "description", "parameters"}}`.
    Nested,
    /// `{"type": "function", "name", "description", "parameters"}`.
    Flat,
    /// `{"name", "description", "input_schema"}`, perhaps with `"type": "custom"`.
    Anthropic,
}

/// The tools of a request.
///
/// # Errors
/// 400 that names the field.
pub(crate) fn tools(fields: &Fields<'_>, shape: Shape) -> Result<Vec<Tool>> {
    let items = fields.list("tools")?.unwrap_or_default();
    if items.len() > MAX_TOOLS {
        return Err(ApiError::field("tools", format!("must hold up to {MAX_TOOLS} tools")));
    }
    let mut tools: Vec<Tool> = Vec::with_capacity(items.len());
    for (index, value) in items.iter().enumerate() {
        let tool = tool(&format!("tools[{index}]."), value, shape)?;
        if tools.iter().any(|other| other.name == tool.name) {
            return Err(ApiError::field(format!("tools[{index}]"), "has the name of another tool"));
        }
        tools.push(tool);
    }
    Ok(tools)
}

fn tool(path: &str, value: &Value, shape: Shape) -> Result<Tool> {
    let outer = Fields::of(value, path)?;
    let inner = format!("{path}function.");
    let (fields, schema) = match (shape, outer.text("type")?) {
        (Shape::Nested, Some("function")) => match outer.get("function") {
            Some(function) => (Fields::of(function, &inner)?, "parameters"),
            None => return Err(ApiError::field(outer.name("function"), "must be an object")),
        },
        (Shape::Flat, Some("function")) => (outer, "parameters"),
        (Shape::Anthropic, None | Some("custom")) => (outer, "input_schema"),
        (Shape::Anthropic, Some(_)) => {
            return Err(ApiError::field(outer.name("type"), "must be custom: there are no built-in tools"));
        }
        (Shape::Nested | Shape::Flat, _) => {
            return Err(ApiError::field(outer.name("type"), "must be function: there are no built-in tools"));
        }
    };
    let name = fields.text("name")?.filter(|name| !name.trim().is_empty());
    Ok(Tool {
        name: name
            .ok_or_else(|| ApiError::field(fields.name("name"), "must be a string, and not empty"))?
            .to_owned(),
        description: fields.text("description")?.unwrap_or_default().to_owned(),
        parameters: match fields.get(schema) {
            None => json!({ "type": "object", "properties": {} }),
            Some(schema) if schema.is_object() => schema.clone(),
            Some(_) => return Err(ApiError::field(fields.name(schema), "must be a JSON schema")),
        },
    })
}

/// Which of `tools` may or must be called.
///
/// # Errors
/// 400 that names the field.
pub(crate) fn tool_choice(fields: &Fields<'_>, tools: &[Tool], shape: Shape) -> Result<ToolChoice> {
    let wrong = |expected: &str| ApiError::field("tool_choice", expected);
    let choice = match (shape, fields.get("tool_choice")) {
        (_, None) => ToolChoice::Auto,
        (Shape::Anthropic, Some(value)) => {
            let inner = Fields::of(value, "tool_choice.")?;
            let unknown = || ApiError::field("tool_choice.type", "must be auto, any, tool or none");
            match inner.text("type")?.ok_or_else(unknown)? {
                "auto" => ToolChoice::Auto,
                "none" => ToolChoice::Never,
                "any" => ToolChoice::Required,
                "tool" => named(inner.text("name")?, tools)?,
                _ => return Err(unknown()),
            }
        }
        (_, Some(Value::String(word))) => match word.as_str() {
            "auto" => ToolChoice::Auto,
            "none" => ToolChoice::Never,
            "required" | "any" => ToolChoice::Required,
            _ => return Err(wrong("must be auto, none, required or a function")),
        },
        (_, Some(value)) => {
            let outer = Fields::of(value, "tool_choice.")?;
            if !matches!(outer.text("type")?, None | Some("function")) {
                return Err(wrong("must be auto, none, required or a function"));
            }
            match (shape, outer.get("function")) {
                (Shape::Nested, Some(function)) => {
                    named(Fields::of(function, "tool_choice.function.")?.text("name")?, tools)?
                }
                _ => named(outer.text("name")?, tools)?,
            }
        }
    };
    if choice == ToolChoice::Required && tools.is_empty() {
        return Err(wrong("requires a call, but there are no tools"));
    }
    Ok(choice)
}

fn named(name: Option<&str>, tools: &[Tool]) -> Result<ToolChoice> {
    match name.filter(|name| tools.iter().any(|tool| tool.name == *name)) {
        Some(name) => Ok(ToolChoice::Named(name.to_owned())),
        None => Err(ApiError::field("tool_choice", "must name one of the tools")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SHAPES: [Shape; 3] = [Shape::Nested, Shape::Flat, Shape::Anthropic];

    fn write(shape: Shape, name: &str) -> Value {
        let schema = json!({ "type": "object" });
        match shape {
            Shape::Nested => {
                json!({ "type": "function", "function": { "name": name, "parameters": schema } })
            }
            Shape::Flat => json!({ "type": "function", "name": name, "parameters": schema }),
            Shape::Anthropic => json!({ "name": name, "input_schema": schema }),
        }
    }

    fn read(body: &Value, shape: Shape) -> Result<(Vec<Tool>, ToolChoice)> {
        let fields = Fields::of_request(body, &[])?;
        let tools = tools(&fields, shape)?;
        let choice = tool_choice(&fields, &tools, shape)?;
        Ok((tools, choice))
    }

    #[test]
    fn tools_and_choices_of_all_shapes() {
        for shape in SHAPES {
            let tools = json!([write(shape, "f"), write(shape, "g")]);
            let choices = match shape {
                Shape::Nested => [
                    json!("required"),
                    json!({ "type": "function", "function": { "name": "g" } }),
                    json!("none"),
                ],
                Shape::Flat => [json!("required"), json!({ "type": "function", "name": "g" }), json!("none")],
                Shape::Anthropic => [
                    json!({ "type": "any" }),
                    json!({ "type": "tool", "name": "g" }),
                    json!({ "type": "none" }),
                ],
            };
            let expected = [ToolChoice::Required, ToolChoice::Named("g".to_owned()), ToolChoice::Never];
            for (choice, expected) in choices.into_iter().zip(expected) {
                let (tools, choice) = read(&json!({ "tools": tools, "tool_choice": choice }), shape).unwrap();
                assert_eq!((tools.len(), choice), (2, expected), "{shape:?}");
            }
            assert_eq!(read(&json!({ "tools": tools }), shape).unwrap().1, ToolChoice::Auto);
            let twice = json!({ "tools": [write(shape, "f"), write(shape, "f")] });
            assert_eq!(read(&twice, shape).unwrap_err().param(), Some("tools[1]"), "{shape:?}");
            for bad in [json!("x"), json!(null), json!([]), json!({}), write(shape, " ")] {
                let refused = read(&json!({ "tools": [bad] }), shape);
                assert!(refused.unwrap_err().param().unwrap().starts_with("tools[0]"), "{shape:?} {bad}");
            }
            for bad in [json!(5), json!({}), json!("perhaps"), json!({ "type": "tool", "name": "h" })] {
                let refused = read(&json!({ "tools": tools, "tool_choice": bad }), shape);
                assert!(refused.unwrap_err().param().unwrap().starts_with("tool_choice"), "{shape:?} {bad}");
            }
        }
    }
}
