//! Reading the fields of a request. Every message names the field and what it may be, and never repeats a value of text.

use std::ops::RangeInclusive;

use serde_json::{Map, Value};

use crate::error::{ApiError, Result};
use crate::fields::{Field, check, is_read};

/// The fields of an object. Null counts as absent, as OpenAI's clients send it.
#[derive(Clone)]
pub struct Fields<'a> {
    object: &'a Map<String, Value>,
    /// Where the object is, such as `messages[2].`; empty for the request itself.
    path: String,
    /// Fields that may be read; all if it is empty.
    table: &'static [Field],
}

/// The JSON of a request's body.
///
/// # Errors
/// 400 that names the place of a mistake.
pub fn parse(body: &[u8]) -> Result<Value> {
    // A byte order mark, which some clients send, is not JSON.
    let body = body.strip_prefix(b"\xef\xbb\xbf").unwrap_or(body);
    serde_json::from_slice(body).map_err(|error| {
        let place = format!("line {}, column {}", error.line(), error.column());
        ApiError::bad(format!("the request body is not JSON ({place})")).with_code("invalid_json")
    })
}

impl<'a> Fields<'a> {
    /// The fields of a request, of which none is refused by `table`. What it does not list as implemented is absent.
    ///
    /// # Errors
    /// 400 if the body is not an object, or names the refused field.
    pub fn of_request(body: &'a Value, table: &'static [Field]) -> Result<Self> {
        let object =
            body.as_object().ok_or_else(|| ApiError::bad("the request body must be a JSON object"))?;
        check(object, table)?;
        Ok(Self { object, path: String::new(), table })
    }

    /// The fields of `value`, which is at `path` (with its dot).
    ///
    /// # Errors
    /// 400 if it is not an object.
    pub fn of(value: &'a Value, path: &str) -> Result<Self> {
        match value.as_object() {
            Some(object) => Ok(Self { object, path: path.to_owned(), table: &[] }),
            None => Err(ApiError::field(path.trim_end_matches('.'), "must be an object")),
        }
    }

    /// The full name of a field.
    pub fn name(&self, name: &str) -> String {
        format!("{}{name}", self.path)
    }

    /// The value of a field; `None` if it is absent or null.
    pub fn get(&self, name: &str) -> Option<&'a Value> {
        self.object.get(name).filter(|value| !value.is_null() && is_read(self.table, name))
    }

    fn wrong(&self, name: &str, expected: impl std::fmt::Display) -> ApiError {
        ApiError::field(self.name(name), expected)
    }

    /// A text.
    ///
    /// # Errors
    /// 400 if it is something else.
    pub fn text(&self, name: &str) -> Result<Option<&'a str>> {
        self.get(name)
            .map(|value| value.as_str().ok_or_else(|| self.wrong(name, "must be a string")))
            .transpose()
    }

    /// True or false.
    ///
    /// # Errors
    /// 400 if it is something else.
    pub fn flag(&self, name: &str) -> Result<bool> {
        match self.get(name) {
            None => Ok(false),
            Some(value) => value.as_bool().ok_or_else(|| self.wrong(name, "must be true or false")),
        }
    }

    /// A number in `range`.
    ///
    /// # Errors
    /// 400 with the range.
    pub fn number(&self, name: &str, range: RangeInclusive<f64>) -> Result<Option<f64>> {
        let Some(value) = self.get(name) else { return Ok(None) };
        let expected = || {
            let got = if value.is_number() { format!(", got {value}") } else { String::new() };
            self.wrong(name, format!("must be a number from {} to {}{got}", range.start(), range.end()))
        };
        let number = value.as_f64().ok_or_else(expected)?;
        if range.contains(&number) { Ok(Some(number)) } else { Err(expected()) }
    }

    /// A whole number in `range`.
    ///
    /// # Errors
    /// 400 with the range.
    pub fn whole(&self, name: &str, range: RangeInclusive<u64>) -> Result<Option<u64>> {
        let Some(value) = self.get(name) else { return Ok(None) };
        // Some clients write 8 as 8.0.
        let whole = value.as_f64().filter(|number| number.fract() == 0.0 && *number >= 0.0);
        let number = value.as_u64().or(whole.map(|number| number as u64));
        match number {
            Some(number) if range.contains(&number) => Ok(Some(number)),
            _ => {
                let got = if value.is_number() { format!(", got {value}") } else { String::new() };
                let limit = match *range.end() {
                    u64::MAX => format!("of at least {}", range.start()),
                    end => format!("from {} to {end}", range.start()),
                };
                Err(self.wrong(name, format!("must be a whole number {limit}{got}")))
            }
        }
    }

    /// A list.
    ///
    /// # Errors
    /// 400 if it is something else.
    pub fn list(&self, name: &str) -> Result<Option<&'a [Value]>> {
        self.get(name)
            .map(|value| {
                value.as_array().map(Vec::as_slice).ok_or_else(|| self.wrong(name, "must be an array"))
            })
            .transpose()
    }

    /// One text or a list of texts, of at most `limit`.
    ///
    /// # Errors
    /// 400 if it is something else.
    pub fn texts(&self, name: &str, limit: usize) -> Result<Vec<String>> {
        let expected = || self.wrong(name, format!("must be a string or an array of up to {limit} strings"));
        match self.get(name) {
            None => Ok(Vec::new()),
            Some(Value::String(text)) => Ok(vec![text.clone()]),
            Some(Value::Array(items)) if items.len() <= limit => {
                items.iter().map(|item| item.as_str().map(ToOwned::to_owned).ok_or_else(expected)).collect()
            }
            Some(_) => Err(expected()),
        }
    }
}

/// The ids of an array of whole numbers; `None` if it holds anything else.
pub fn token_ids(items: &[Value]) -> Option<Vec<u32>> {
    items.iter().map(|item| item.as_u64().and_then(|id| u32::try_from(id).ok())).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn messages_name_the_field_and_its_range() {
        let body =
            json!({ "max_tokens": -1, "stream": "yes", "top_p": 1.1, "stop": [1], "seed": null, "n": 2.0 });
        let fields = Fields::of_request(&body, &[]).unwrap();
        let message = |error: ApiError| error.message().to_owned();
        assert_eq!(
            message(fields.whole("max_tokens", 1..=u64::MAX).unwrap_err()),
            "max_tokens must be a whole number of at least 1, got -1"
        );
        assert_eq!(message(fields.flag("stream").unwrap_err()), "stream must be true or false");
        assert_eq!(
            message(fields.number("top_p", 0.0..=1.0).unwrap_err()),
            "top_p must be a number from 0 to 1, got 1.1"
        );
        assert!(message(fields.texts("stop", 4).unwrap_err()).starts_with("stop must be"));
        assert_eq!(fields.whole("seed", 0..=u64::MAX).unwrap(), None);
        assert_eq!(fields.whole("n", 1..=8).unwrap(), Some(2));
    }

    #[test]
    fn a_byte_order_mark_is_skipped_and_text_is_not_repeated() {
        assert_eq!(parse(b"\xef\xbb\xbf{}").unwrap(), json!({}));
        let error = parse(b"{\"secret words\" }").unwrap_err();
        assert!(!error.message().contains("secret"), "{}", error.message());
    }
}
