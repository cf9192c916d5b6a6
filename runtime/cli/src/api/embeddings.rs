//! `POST /v1/embeddings`.

use std::sync::Arc;

use axum::Json;
use axum::body::Bytes;
use axum::extract::State as Extract;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};
use sotto_http::embedding::EmbeddingRequest;
use sotto_http::error::ApiError;
use sotto_http::read;

use super::encoder::Vectors;
use super::routes::{State, in_background};

/// The vectors of texts.
pub(super) async fn embeddings(
    Extract(state): Extract<Arc<State>>,
    body: Bytes,
) -> Result<Json<Value>, ApiError> {
    let request = in_background(move || EmbeddingRequest::read(&read::parse(&body)?)).await?;
    if let Some(model) = &request.model
        && *model != state.embedding_model
    {
        return Err(ApiError::unknown_model(model, &[&state.embedding_model]));
    }
    let vectors = state.encoder.embed(request.inputs).await?;
    let length = vectors.vectors.first().map_or(0, Vec::len);
    if request.dimensions.is_some_and(|wanted| wanted != length) {
        let expected = format!("must be {length}: the model's vectors have one length");
        return Err(ApiError::field("dimensions", expected));
    }
    Ok(Json(object(&vectors, &state.embedding_model, request.base64)))
}

fn object(vectors: &Vectors, model: &str, base64: bool) -> Value {
    let data: Vec<_> = vectors
        .vectors
        .iter()
        .enumerate()
        .map(|(index, vector)| {
            let embedding = if base64 {
                let bytes: Vec<u8> = vector.iter().flat_map(|value| value.to_le_bytes()).collect();
                json!(STANDARD.encode(bytes))
            } else {
                json!(vector)
            };
            json!({ "object": "embedding", "index": index, "embedding": embedding })
        })
        .collect();
    json!({
        "object": "list",
        "data": data,
        "model": model,
        "usage": { "prompt_tokens": vectors.tokens, "total_tokens": vectors.tokens },
    })
}
