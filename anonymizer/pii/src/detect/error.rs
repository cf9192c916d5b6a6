//! What can go wrong in detection.

/// Errors of detection. Texts never contain what was to be scanned.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DetectError {
    /// The model or its backend failed.
    #[error(transparent)]
    Model(#[from] sotto_models::Error),
    /// The model's reply cannot be read.
    #[error("reply of the model: {0}")]
    Reply(#[from] candle_core::Error),
    /// The tokenizer refused a text.
    #[error("tokenizer: {0}")]
    Tokenizer(String),
    /// The model cannot be used for detection.
    #[error("model: {field}: expected {expected}, got {got}")]
    Unsuitable {
        /// What about it.
        field: &'static str,
        /// What detection needs.
        expected: String,
        /// What the model has.
        got: String,
    },
    /// The options contradict each other or the model.
    #[error("detection options: {field} must be {expected}, got {got}")]
    Options {
        /// The option.
        field: &'static str,
        /// Its range.
        expected: String,
        /// The value.
        got: String,
    },
}
