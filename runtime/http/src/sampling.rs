//! The fields that say how an answer is generated.

use serde_json::Value;

use crate::error::{ApiError, Result};
use crate::read::Fields;

/// Largest number of answers to one request.
pub const MAX_ANSWERS: u64 = 8;

/// Largest number of stop texts.
pub const MAX_STOPS: usize = 16;

/// Largest number of tokens with a bias.
const MAX_BIASES: usize = 1024;

/// How an answer is generated; what a request leaves open is `None`.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Sampling {
    /// Maximum number of tokens; `None` up to the end of the context.
    pub max_tokens: Option<usize>,
    /// 0 to 2 in OpenAI's reference, to 100 here.
    pub temperature: Option<f32>,
    /// 0 to 1.
    pub top_p: Option<f32>,
    /// 0 keeps all.
    pub top_k: Option<usize>,
    /// 0 to 1.
    pub min_p: Option<f32>,
    /// 1 is none.
    pub repeat_penalty: Option<f32>,
    /// -2 to 2.
    pub presence_penalty: f32,
    /// -2 to 2.
    pub frequency_penalty: f32,
    /// Token ids with what is added to their logits.
    pub bias: Vec<(u32, f32)>,
    /// The sampler's seed.
    pub seed: Option<u64>,
    /// Texts that end the answer.
    pub stop: Vec<String>,
    /// How many answers to give, at least 1.
    pub answers: usize,
}

impl Sampling {
    /// Reads the fields that chat completions and completions share. `max_tokens` lists the names of that field, of which the
    /// first one present wins.
    ///
    /// # Errors
    /// 400 that names the field.
    pub fn read(fields: &Fields<'_>, max_tokens: &[&str]) -> Result<Self> {
        let mut limit = None;
        for name in max_tokens {
            // Many clients write -1 for "no limit".
            let unlimited = fields.get(name).is_some_and(|value| value.as_i64() == Some(-1));
            if !unlimited && limit.is_none() {
                limit = fields.whole(name, 1..=u64::MAX)?;
            }
        }
        let off = |name: &str| fields.get(name).is_some_and(|value| value.as_i64() == Some(-1));
        let repeat = match fields.get("repeat_penalty") {
            Some(_) => "repeat_penalty",
            None => "repetition_penalty",
        };
        let number =
            |name: &str, range| Ok::<_, ApiError>(fields.number(name, range)?.map(|value| value as f32));
        Ok(Self {
            max_tokens: limit.map(|limit| usize::try_from(limit).unwrap_or(usize::MAX)),
            temperature: number("temperature", 0.0..=100.0)?,
            // The likeliest token alone: the smallest share that is not none.
            top_p: number("top_p", 0.0..=1.0)?.map(|share| share.max(f32::MIN_POSITIVE)),
            top_k: match off("top_k") {
                true => Some(0),
                false => fields.whole("top_k", 0..=u64::from(u32::MAX))?.map(|count| count as usize),
            },
            min_p: number("min_p", 0.0..=1.0)?,
            repeat_penalty: number(repeat, 0.01..=10.0)?,
            presence_penalty: number("presence_penalty", -2.0..=2.0)?.unwrap_or(0.0),
            frequency_penalty: number("frequency_penalty", -2.0..=2.0)?.unwrap_or(0.0),
            bias: bias(fields)?,
            seed: if off("seed") { None } else { seed(fields)? },
            stop: fields.texts("stop", MAX_STOPS)?,
            answers: fields.whole("n", 1..=MAX_ANSWERS)?.unwrap_or(1) as usize,
        })
    }
}

/// Any whole number is a seed, negative ones too.
fn seed(fields: &Fields<'_>) -> Result<Option<u64>> {
    let Some(value) = fields.get("seed") else { return Ok(None) };
    let seed = value.as_u64().or_else(|| value.as_i64().map(i64::cast_unsigned));
    seed.map(Some).ok_or_else(|| ApiError::field(fields.name("seed"), "must be a whole number"))
}

fn bias(fields: &Fields<'_>) -> Result<Vec<(u32, f32)>> {
    let wrong = || {
        let expected = format!("must map up to {MAX_BIASES} token ids to numbers from -100 to 100");
        ApiError::field(fields.name("logit_bias"), expected)
    };
    let Some(value) = fields.get("logit_bias") else { return Ok(Vec::new()) };
    let entries = value.as_object().filter(|entries| entries.len() <= MAX_BIASES).ok_or_else(wrong)?;
    entries
        .iter()
        .map(|(id, bias)| {
            let bias = bias.as_f64().filter(|bias| (-100.0..=100.0).contains(bias)).ok_or_else(wrong)?;
            Ok((id.parse().map_err(|_| wrong())?, bias as f32))
        })
        .collect()
}

/// The form that an answer must have.
#[derive(Clone, Debug, Default, PartialEq)]
pub enum Form {
    /// Any text.
    #[default]
    Text,
    /// A JSON object.
    JsonObject,
    /// JSON of this schema.
    JsonSchema(Value),
}

/// Reads a form, as `response_format` of chat completions or `text.format` of responses has it.
///
/// # Errors
/// 400 that names the field.
pub fn form(value: Option<&Value>, name: &str) -> Result<Form> {
    let Some(value) = value else { return Ok(Form::Text) };
    let path = format!("{name}.");
    let fields = Fields::of(value, &path)?;
    match fields.text("type")? {
        Some("text") => Ok(Form::Text),
        Some("json_object") => Ok(Form::JsonObject),
        Some("json_schema") => {
            // Chat completions nest the schema once more than responses do.
            let holder = fields.get("json_schema").unwrap_or(value);
            let schema = holder.get("schema").filter(|schema| schema.is_object());
            match schema {
                Some(schema) => Ok(Form::JsonSchema(schema.clone())),
                None => Err(ApiError::field(format!("{path}json_schema.schema"), "must be a JSON schema")),
            }
        }
        _ => Err(ApiError::field(format!("{path}type"), "must be text, json_object or json_schema")),
    }
}

/// Whether the last event of a stream is to count tokens.
///
/// # Errors
/// 400 that names the field.
pub fn wants_usage(fields: &Fields<'_>) -> Result<bool> {
    match fields.get("stream_options") {
        None => Ok(false),
        Some(options) => Fields::of(options, "stream_options.")?.flag("include_usage"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn read(body: &Value) -> Result<Sampling> {
        Sampling::read(&Fields::of_request(body, &[]).unwrap(), &["max_completion_tokens", "max_tokens"])
    }

    #[test]
    fn what_peers_accept_is_accepted() {
        let body = json!({ "max_tokens": -1, "top_k": -1, "seed": -1, "top_p": 0, "n": 2, "logit_bias": { "5": -100 } });
        let sampling = read(&body).unwrap();
        assert_eq!((sampling.max_tokens, sampling.top_k, sampling.seed), (None, Some(0), None));
        assert!(sampling.top_p.unwrap() > 0.0);
        assert_eq!((sampling.answers, sampling.bias), (2, vec![(5, -100.0)]));
        let both = read(&json!({ "max_tokens": 5, "max_completion_tokens": 9 })).unwrap();
        assert_eq!(both.max_tokens, Some(9));
    }

    #[test]
    fn values_out_of_range_are_refused_by_name() {
        for (name, value) in [
            ("max_tokens", json!(0)),
            ("temperature", json!(-1)),
            ("top_p", json!(1.5)),
            ("n", json!(0)),
            ("n", json!(9)),
            ("presence_penalty", json!(3)),
            ("logit_bias", json!({ "a": 1 })),
            ("logit_bias", json!({ "1": 101 })),
            ("seed", json!("x")),
            ("stop", json!(vec!["a"; 17])),
        ] {
            assert_eq!(read(&json!({ name: value })).unwrap_err().param(), Some(name), "{name}");
        }
    }

    #[test]
    fn forms_of_both_endpoints() {
        let schema = json!({ "type": "object" });
        let chat = json!({ "type": "json_schema", "json_schema": { "name": "x", "schema": schema } });
        let response = json!({ "type": "json_schema", "name": "x", "schema": schema });
        for value in [chat, response] {
            assert_eq!(form(Some(&value), "f").unwrap(), Form::JsonSchema(schema.clone()));
        }
        assert_eq!(form(Some(&json!({ "type": "bogus" })), "f").unwrap_err().param(), Some("f.type"));
        assert!(form(Some(&json!({ "type": "json_schema" })), "f").is_err());
    }
}
