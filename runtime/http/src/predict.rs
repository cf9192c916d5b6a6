//! `POST /v1/predict`: rows of numbers, as arrays or as objects by feature.

use serde_json::Value;

use crate::error::{ApiError, Result};
use crate::fields::PREDICT;
use crate::read::Fields;

/// Largest number of rows of one request.
pub const MAX_ROWS: usize = 65_536;

/// A request.
#[derive(Clone, Debug, PartialEq)]
pub struct PredictRequest {
    /// The model's name, if the request has one.
    pub model: Option<String>,
    /// Names of the columns of rows that are arrays.
    pub columns: Option<Vec<String>>,
    /// Whether probabilities are asked for; `None` means where the model has them.
    pub proba: Option<bool>,
    /// The rows, all arrays or all objects.
    rows: Vec<Value>,
}

impl PredictRequest {
    /// Reads a request.
    ///
    /// # Errors
    /// 400 that names the field.
    pub fn read(mut body: Value) -> Result<Self> {
        let fields = Fields::of_request(&body, PREDICT)?;
        let model = fields.text("model")?.map(ToOwned::to_owned);
        let wrong = || {
            let expected = format!(
                "must be an array of up to {MAX_ROWS} rows, all arrays of numbers or all objects of numbers"
            );
            ApiError::field("rows", expected)
        };
        let rows = fields.list("rows")?.filter(|rows| rows.len() <= MAX_ROWS).ok_or_else(wrong)?;
        if !rows.iter().all(Value::is_array) && !rows.iter().all(Value::is_object) {
            return Err(wrong());
        }
        let is_objects = rows.first().is_some_and(Value::is_object);
        let columns = match fields.list("columns")? {
            Some(_) if is_objects => {
                return Err(ApiError::field("columns", "is for rows that are arrays; objects have names"));
            }
            Some(names) => {
                let names = names.iter().map(|name| name.as_str().map(ToOwned::to_owned));
                let names: Option<Vec<String>> = names.collect();
                Some(names.ok_or_else(|| ApiError::field("columns", "must be an array of strings"))?)
            }
            None => None,
        };
        let proba = fields.get("proba").is_some().then(|| fields.flag("proba")).transpose()?;
        let rows = match body.get_mut("rows").map(Value::take) {
            Some(Value::Array(rows)) => rows,
            _ => return Err(wrong()),
        };
        Ok(Self { model, columns, proba, rows })
    }

    /// The names in the first row, if rows are objects.
    pub fn names(&self) -> Option<Vec<String>> {
        Some(self.rows.first()?.as_object()?.keys().cloned().collect())
    }

    /// The rows as values of `features`, in their order, `[rows][features]`: NaN where a value is missing. `places` says
    /// where in rows that are arrays of `width` they are; objects are read by name.
    ///
    /// # Errors
    /// 400 that names the cell, for one that is absent, no number, or missing where `reads_missing` is false.
    ///
    /// # Panics
    /// If there is not one place per feature.
    pub fn features(
        &self,
        features: &[&str],
        places: &[usize],
        width: usize,
        reads_missing: bool,
    ) -> Result<Vec<Vec<f64>>> {
        assert_eq!(features.len(), places.len(), "a place per feature");
        let rows = self.rows.iter().enumerate();
        rows.map(|(index, row)| {
            let array = row.as_array();
            if let Some(cells) = array
                && cells.len() != width
            {
                let expected =
                    format!("must have {width} numbers, one per {}, got {}", self.unit(), cells.len());
                return Err(ApiError::field(format!("rows[{index}]"), expected));
            }
            let cells = features.iter().zip(places);
            cells
                .map(|(name, &place)| {
                    let cell = match array {
                        Some(cells) => cells.get(place),
                        None => row.get(name),
                    };
                    number(cell, reads_missing).map_err(|expected| {
                        let cell = if array.is_some() { format!("[{place}]") } else { format!(".{name}") };
                        ApiError::field(format!("rows[{index}]{cell}"), expected)
                    })
                })
                .collect()
        })
        .collect()
    }

    fn unit(&self) -> &'static str {
        if self.columns.is_some() { "column" } else { "feature" }
    }
}

/// The number in a cell, NaN for null, or what a cell must be.
fn number(cell: Option<&Value>, reads_missing: bool) -> Result<f64, &'static str> {
    match cell {
        None if reads_missing => Err("is not there; send null for a missing value"),
        None => Err("is not there"),
        Some(Value::Null) if reads_missing => Ok(f64::NAN),
        Some(Value::Null) => Err("must be a number; this model has no use for missing values"),
        Some(Value::Bool(flag)) => Ok(f64::from(u8::from(*flag))),
        Some(Value::Number(number)) => number.as_f64().ok_or("must be a number"),
        Some(_) if reads_missing => Err("must be a number, or null for a missing value"),
        Some(_) => Err("must be a number"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn requests_are_checked() {
        for (body, param) in [
            (json!({}), "rows"),
            (json!({ "rows": 5 }), "rows"),
            (json!({ "rows": [5] }), "rows"),
            (json!({ "rows": [[1], { "a": 1 }] }), "rows"),
            (json!({ "rows": vec![json!([]); MAX_ROWS + 1] }), "rows"),
            (json!({ "rows": [[1]], "columns": [1] }), "columns"),
            (json!({ "rows": [{ "a": 1 }], "columns": ["a"] }), "columns"),
            (json!({ "rows": [[1]], "proba": "yes" }), "proba"),
            (json!({ "rows": [[1]], "model": 1 }), "model"),
        ] {
            assert_eq!(PredictRequest::read(body).unwrap_err().param(), Some(param));
        }
        let request = PredictRequest::read(json!({ "rows": [], "proba": false })).unwrap();
        assert_eq!((request.proba, request.names()), (Some(false), None));
        assert!(request.features(&["a"], &[0], 1, false).unwrap().is_empty());
    }

    #[test]
    fn cells_are_numbers_or_named() {
        let of = |rows: Value, reads_missing: bool| {
            let request = PredictRequest::read(json!({ "rows": rows })).unwrap();
            request.features(&["a", "b"], &[1, 0], 2, reads_missing)
        };
        assert_eq!(of(json!([[1, 2.5], [true, -3]]), false).unwrap(), [[2.5, 1.0], [-3.0, 1.0]]);
        assert_eq!(of(json!([{ "b": 1, "a": 2, "c": "x" }]), false).unwrap(), [[2.0, 1.0]]);
        assert!(of(json!([[null, 1]]), true).unwrap()[0][1].is_nan());
        for (rows, param) in [
            (json!([[1, 2], [1]]), "rows[1]"),
            (json!([[1, "secret"]]), "rows[0][1]"),
            (json!([[null, 1]]), "rows[0][0]"),
            (json!([{ "a": 1 }]), "rows[0].b"),
            (json!([{ "a": [1], "b": 1 }]), "rows[0].a"),
        ] {
            let error = of(rows, false).unwrap_err();
            assert_eq!(error.param(), Some(param));
            assert!(!error.message().contains("secret"), "values stay out of messages");
        }
    }
}
