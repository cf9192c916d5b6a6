//! Which texts of a request are scanned, and how.
//!
//! Every string, key and number of a request is visited. What people and tools say is scanned by the model; names in
//! programs by the recognizers; words of the protocol are only compared with values that are known already. A place is
//! taken for one of the protocol by where it is ([`Shape`]) and by what it holds, never by its name alone. What cannot be
//! scanned is refused.

use axum::http::StatusCode;
use serde_json::{Map, Value};

use super::protocol::{Shape, WORDS};
use super::reply::Refusal;

/// How a text is scanned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Depth {
    /// Recognizers and model.
    Full,
    /// Recognizers and known values.
    Light,
    /// Known values.
    Known,
}

/// Where a text was.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Place {
    /// A string.
    String,
    /// The name of a field.
    Key,
    /// A number.
    Number,
}

/// A text of a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct TextField {
    /// What the scan sees: possibly the name of a field before the value, for context.
    pub(super) text: String,
    /// Code points before the value.
    pub(super) prefix: usize,
    pub(super) depth: Depth,
    pub(super) place: Place,
}

impl TextField {
    /// The value without its context.
    pub(super) fn value(&self) -> String {
        self.text.chars().skip(self.prefix).collect()
    }
}

/// Levels of a request below one another. Deeper ones are refused.
const MAX_DEPTH: usize = 64;
/// Digits from which a number could be a person's.
const LONG_NUMBER: usize = 7;
/// Characters of the longest name in a program, or of a model.
const LONGEST_NAME: usize = 128;
/// Characters from which text without white space in the alphabet of base64 is taken for a file.
const BLOB: usize = 1024;
/// How the identities begin that providers make up.
const IDENTITIES: [&str; 16] = [
    "call_",
    "toolu_",
    "srvtoolu_",
    "chatcmpl-",
    "chatcmpl_",
    "msg_",
    "resp_",
    "fc_",
    "fco_",
    "rs_",
    "item_",
    "conv_",
    "run_",
    "ctc_",
    "ws_",
    "ig_",
];
/// Types of parts that are pictures, sound or files.
const ATTACHMENTS: [&str; 14] = [
    "image_url",
    "input_image",
    "image",
    "output_image",
    "input_audio",
    "audio",
    "output_audio",
    "input_file",
    "file",
    "document",
    "video",
    "video_url",
    "input_video",
    "container_upload",
];
/// Fields that hold what such a part is.
const CONTENTS: [&str; 9] =
    ["image_url", "input_audio", "file", "file_data", "file_id", "file_url", "source", "data", "url"];

/// Sees the texts of a request, in an order that depends on its structure only. What `each` returns takes a text's place;
/// `None` leaves it.
pub(super) struct Visitor<'a> {
    each: &'a mut dyn FnMut(TextField) -> Option<String>,
    allow_attachments: bool,
    refusal: Option<Refusal>,
}

impl<'a> Visitor<'a> {
    pub(super) fn new(allow_attachments: bool, each: &'a mut dyn FnMut(TextField) -> Option<String>) -> Self {
        Self { each, allow_attachments, refusal: None }
    }

    /// Visits a request of this shape.
    ///
    /// # Errors
    /// If it holds what cannot be scanned.
    pub(super) fn request(mut self, request: &mut Value, shape: &Shape) -> Result<(), Refusal> {
        self.walk(request, shape, "", 0);
        self.refusal.map_or(Ok(()), Err)
    }

    fn refuse(&mut self, code: &'static str, message: &str) {
        self.refusal.get_or_insert_with(|| Refusal::new(StatusCode::UNPROCESSABLE_ENTITY, code, message));
    }

    fn refuse_attachment(&mut self) {
        self.refuse(
            "attachment",
            "pictures, sound and files cannot be anonymized; start the proxy with --allow-attachments to send them as they are",
        );
    }

    fn walk(&mut self, value: &mut Value, shape: &Shape, name: &str, depth: usize) {
        if depth > MAX_DEPTH {
            return self.refuse("depth", &format!("the request is nested more than {MAX_DEPTH} levels deep"));
        }
        match (shape, &mut *value) {
            (Shape::Fields(known), Value::Object(fields)) => self.fields(fields, known, depth),
            (Shape::List(inner), Value::Array(values)) => {
                values.iter_mut().for_each(|value| self.walk(value, inner, name, depth + 1));
            }
            (Shape::OneOf(shapes), _) => {
                let shape = shapes.iter().find(|shape| has_form(value, shape)).unwrap_or(&Shape::Data);
                self.walk(value, shape, name, depth);
            }
            (Shape::Tagged(kinds), Value::Object(fields)) => match tagged(fields, kinds) {
                Some(known) => self.fields(fields, known, depth),
                None => self.data(value, name, depth),
            },
            (Shape::Content(_), Value::String(text)) => self.string(text, Depth::Full, ""),
            (Shape::Content(_), Value::Array(values)) => {
                values.iter_mut().for_each(|value| self.walk(value, shape, name, depth + 1));
            }
            (Shape::Content(kinds), Value::Object(fields)) => match tagged(fields, kinds) {
                Some(known) => self.fields(fields, known, depth),
                // A part without a type holds text, if it is no file.
                None if !fields.get("type").is_some_and(Value::is_string) => self.data(value, name, depth),
                None => self.attachment(value, depth),
            },
            (Shape::Text, Value::String(text)) => self.string(text, Depth::Full, ""),
            (Shape::Text, Value::Number(_) | Value::Array(_)) => {
                self.refuse("tokens", "tokens cannot be anonymized; send text");
            }
            (Shape::Word, Value::String(text)) if WORDS.contains(&text.as_str()) => {
                self.string(text, Depth::Known, "");
            }
            (Shape::Name, Value::String(text)) if is_name(text) => self.string(text, Depth::Light, ""),
            (Shape::Identity, Value::String(text)) if is_identity(text) => {
                self.string(text, Depth::Known, "")
            }
            (Shape::Opaque, Value::String(text)) if is_opaque(text) => self.string(text, Depth::Known, ""),
            (Shape::Setting, Value::Number(_)) => self.number(value, Depth::Known, ""),
            (Shape::Arguments, Value::String(text)) => self.arguments(text, depth),
            (Shape::Schema, Value::Object(fields)) => self.schema(fields, depth),
            (Shape::Weights, Value::Object(fields)) => self.weights(fields, depth),
            (Shape::Attachment, value) if !value.is_null() => self.attachment(value, depth),
            (_, value) => self.data(value, name, depth),
        }
    }

    /// Fields of the protocol, and others, which are data.
    fn fields(&mut self, fields: &mut Map<String, Value>, known: &[(&str, Shape)], depth: usize) {
        for (name, mut value) in std::mem::take(fields) {
            match known.iter().find(|(known, _)| *known == name) {
                Some((_, shape)) => {
                    self.walk(&mut value, shape, &name, depth + 1);
                    fields.insert(name, value);
                }
                None => self.field(fields, name, value, depth),
            }
        }
    }

    /// A field that is data: its name is scanned, too.
    fn field(&mut self, into: &mut Map<String, Value>, mut name: String, mut value: Value, depth: usize) {
        // What a field for text holds needs no announcement.
        let context = if matches!(name.as_str(), "text" | "content" | "description") { "" } else { &name };
        self.walk(&mut value, &Shape::Data, context, depth + 1);
        self.key(&mut name);
        into.insert(name, value);
    }

    /// Anything: its strings, keys and numbers.
    fn data(&mut self, value: &mut Value, name: &str, depth: usize) {
        match value {
            Value::String(text) if is_blob(text) => self.blob(text),
            Value::String(text) => self.string(text, Depth::Full, name),
            Value::Number(_) => self.number(value, Depth::Full, name),
            Value::Array(values) => {
                values.iter_mut().for_each(|value| self.walk(value, &Shape::Data, name, depth + 1));
            }
            Value::Object(fields) if is_attachment(fields) && !self.allow_attachments => {
                self.refuse_attachment()
            }
            Value::Object(fields) => {
                for (name, value) in std::mem::take(fields) {
                    self.field(fields, name, value, depth);
                }
            }
            Value::Null | Value::Bool(_) => {}
        }
    }

    /// A picture, sound or file: refused, or else scanned but for its contents.
    fn attachment(&mut self, value: &mut Value, depth: usize) {
        if !self.allow_attachments {
            return self.refuse_attachment();
        }
        match value {
            Value::Object(fields) => {
                for (name, mut value) in std::mem::take(fields) {
                    match value {
                        Value::String(_) if name == "type" => {
                            self.walk(&mut value, &Shape::Word, "", depth + 1)
                        }
                        Value::String(_) if CONTENTS.contains(&name.as_str()) => {}
                        Value::Object(_) | Value::Array(_) => self.attachment(&mut value, depth + 1),
                        _ => self.walk(&mut value, &Shape::Data, &name, depth + 1),
                    }
                    fields.insert(name, value);
                }
            }
            Value::Array(values) => values.iter_mut().for_each(|value| self.attachment(value, depth + 1)),
            value => self.walk(value, &Shape::Data, "", depth),
        }
    }

    fn blob(&mut self, text: &mut String) {
        if self.allow_attachments {
            self.string(text, Depth::Known, "");
        } else {
            self.refuse_attachment();
        }
    }

    /// JSON in a string: value by value if it can be read, else as one text.
    fn arguments(&mut self, text: &mut String, depth: usize) {
        match serde_json::from_str::<Value>(text) {
            Ok(mut value) if value.is_object() || value.is_array() => {
                let before = value.clone();
                self.arguments_value(&mut value, "", depth + 1);
                // Whatever is unchanged keeps its spelling.
                if value != before {
                    *text = value.to_string();
                }
            }
            _ => self.string(text, Depth::Full, ""),
        }
    }

    /// As [`data`](Self::data), but no object is an attachment: tools have arguments of all kinds.
    fn arguments_value(&mut self, value: &mut Value, name: &str, depth: usize) {
        if depth > MAX_DEPTH {
            return self.refuse("depth", &format!("the request is nested more than {MAX_DEPTH} levels deep"));
        }
        match value {
            Value::Array(values) => {
                values.iter_mut().for_each(|value| self.arguments_value(value, name, depth + 1));
            }
            Value::Object(fields) => {
                for (mut name, mut value) in std::mem::take(fields) {
                    self.arguments_value(&mut value, &name, depth + 1);
                    self.key(&mut name);
                    fields.insert(name, value);
                }
            }
            value => self.data(value, name, depth),
        }
    }

    /// A JSON Schema (draft 2020-12): keywords belong to the protocol, what they say is data.
    fn schema(&mut self, fields: &mut Map<String, Value>, depth: usize) {
        for (name, mut value) in std::mem::take(fields) {
            match name.as_str() {
                "type" | "format" => {
                    let shape = Shape::OneOf(&[Shape::List(&Shape::Word), Shape::Word]);
                    self.walk(&mut value, &shape, "", depth + 1);
                }
                "properties" | "$defs" | "definitions" | "patternProperties" | "dependentSchemas"
                    if value.is_object() =>
                {
                    for (mut name, mut schema) in
                        value.as_object_mut().map(std::mem::take).into_iter().flatten()
                    {
                        self.walk(&mut schema, &Shape::Schema, "", depth + 2);
                        self.key(&mut name);
                        if let Some(into) = value.as_object_mut() {
                            into.insert(name, schema);
                        }
                    }
                }
                "items"
                | "additionalProperties"
                | "not"
                | "if"
                | "then"
                | "else"
                | "contains"
                | "propertyNames"
                | "unevaluatedProperties"
                | "additionalItems" => {
                    let shape = Shape::OneOf(&[Shape::List(&Shape::Schema), Shape::Schema]);
                    self.walk(&mut value, &shape, "", depth + 1);
                }
                "anyOf" | "oneOf" | "allOf" | "prefixItems" => {
                    self.walk(&mut value, &Shape::List(&Shape::Schema), "", depth + 1);
                }
                "required" => self.walk(&mut value, &Shape::List(&Shape::Name), "", depth + 1),
                "$ref" | "$id" | "$schema" | "$anchor" => match &mut value {
                    Value::String(text) => self.string(text, Depth::Light, ""),
                    value => self.walk(value, &Shape::Data, "", depth + 1),
                },
                "title" | "description" | "default" | "const" | "enum" | "examples" | "pattern"
                | "$comment" => {
                    self.walk(&mut value, &Shape::Data, "", depth + 1);
                }
                "minimum" | "maximum" | "exclusiveMinimum" | "exclusiveMaximum" | "multipleOf"
                | "minLength" | "maxLength" | "minItems" | "maxItems" | "minProperties" | "maxProperties" => {
                    self.walk(&mut value, &Shape::Setting, "", depth + 1);
                }
                _ => {
                    self.field(fields, name, value, depth);
                    continue;
                }
            }
            fields.insert(name, value);
        }
    }

    /// Numbers by token.
    fn weights(&mut self, fields: &mut Map<String, Value>, depth: usize) {
        for (name, mut value) in std::mem::take(fields) {
            let token = name.len() <= LONG_NUMBER && name.bytes().all(|byte| byte.is_ascii_digit());
            if token && value.is_number() {
                self.walk(&mut value, &Shape::Setting, "", depth + 1);
                fields.insert(name, value);
            } else {
                self.field(fields, name, value, depth);
            }
        }
    }

    fn key(&mut self, name: &mut String) {
        let depth = if is_name(name) { Depth::Light } else { Depth::Full };
        self.visit(name, depth, "", Place::Key);
    }

    fn number(&mut self, value: &mut Value, depth: Depth, name: &str) {
        let before = value.to_string();
        let long = before.bytes().filter(u8::is_ascii_digit).count() >= LONG_NUMBER;
        let mut text = before.clone();
        self.visit(&mut text, if long { depth } else { Depth::Known }, name, Place::Number);
        if text != before {
            *value = Value::String(text);
        }
    }

    fn string(&mut self, text: &mut String, depth: Depth, name: &str) {
        self.visit(text, depth, name, Place::String);
    }

    fn visit(&mut self, text: &mut String, depth: Depth, name: &str, place: Place) {
        if text.is_empty() {
            return;
        }
        let front = match depth {
            Depth::Full if !name.is_empty() => format!("{}: ", name.replace(['_', '-'], " ")),
            _ => String::new(),
        };
        let field = TextField { prefix: front.chars().count(), text: front + text, depth, place };
        if let Some(replaced) = (self.each)(field) {
            *text = replaced;
        }
    }
}

/// Whether a value has the JSON type that a shape describes.
fn has_form(value: &Value, shape: &Shape) -> bool {
    match shape {
        Shape::Fields(_) | Shape::Tagged(_) | Shape::Schema | Shape::Weights => value.is_object(),
        Shape::List(_) => value.is_array(),
        Shape::Setting => value.is_number(),
        Shape::Word | Shape::Name | Shape::Identity | Shape::Opaque | Shape::Arguments => value.is_string(),
        Shape::Text | Shape::Content(_) | Shape::OneOf(_) | Shape::Data | Shape::Attachment => true,
    }
}

/// The fields of an object of this type.
fn tagged<'s>(
    fields: &Map<String, Value>,
    kinds: &'s [(&str, &'s [(&'s str, Shape)])],
) -> Option<&'s [(&'s str, Shape)]> {
    let kind = match fields.get("type") {
        Some(Value::String(kind)) => kind.as_str(),
        Some(_) => return None,
        None => "",
    };
    kinds.iter().find(|(known, _)| *known == kind).map(|(_, fields)| *fields)
}

fn is_attachment(fields: &Map<String, Value>) -> bool {
    let typed = fields.get("type").and_then(Value::as_str).is_some_and(|kind| ATTACHMENTS.contains(&kind));
    typed && CONTENTS.iter().any(|name| fields.contains_key(*name))
}

/// A name in a program, or of a model: no text, and no number.
fn is_name(text: &str) -> bool {
    let part =
        |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.' | ':' | '/' | '@' | '$' | '+');
    text.len() <= LONGEST_NAME
        && text.starts_with(|c: char| c.is_ascii_alphabetic() || matches!(c, '_' | '$'))
        && text.chars().all(part)
}

/// An identity that a provider made up: a prefix and what looks random.
fn is_identity(text: &str) -> bool {
    let rest = IDENTITIES.iter().find_map(|prefix| text.strip_prefix(prefix));
    rest.is_some_and(|rest| {
        (8..=LONGEST_NAME).contains(&rest.len())
            && rest.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-'))
            && rest.bytes().any(|byte| byte.is_ascii_digit())
            && rest.bytes().any(|byte| byte.is_ascii_alphabetic())
    })
}

fn in_base64(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'/' | b'=' | b'-' | b'_')
}

/// Base64 of some length, with digits, small and capital letters.
fn is_opaque(text: &str) -> bool {
    text.len() >= 64
        && text.bytes().all(in_base64)
        && text.bytes().any(|byte| byte.is_ascii_digit())
        && text.bytes().any(|byte| byte.is_ascii_lowercase())
        && text.bytes().any(|byte| byte.is_ascii_uppercase())
}

/// A file in a string.
fn is_blob(text: &str) -> bool {
    let data = text.strip_prefix("data:").is_some_and(|rest| rest.contains(";base64,"));
    data || (text.len() >= BLOB && text.bytes().all(in_base64) && is_opaque(text))
}

#[cfg(test)]
#[path = "scrub_tests.rs"]
mod tests;
