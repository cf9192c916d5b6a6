//! `POST /v1/rerank`: documents by how close they are to a query, as the sentence encoder sees it.

use std::sync::Arc;

use axum::Json;
use axum::body::Bytes;
use axum::extract::State as Extract;
use serde_json::{Value, json};
use sotto_http::completion::Prompt;
use sotto_http::error::ApiError;
use sotto_http::read;
use sotto_http::request_id::new_id;
use sotto_http::rerank::RerankRequest;

use super::routes::{State, in_background};

/// The documents, the closest first.
pub(super) async fn rerank(
    Extract(state): Extract<Arc<State>>,
    body: Bytes,
) -> Result<Json<Value>, ApiError> {
    let request = in_background(move || RerankRequest::read(&read::parse(&body)?)).await?;
    if let Some(model) = &request.model
        && *model != state.embedding_model
    {
        return Err(ApiError::unknown_model(model, &[&state.embedding_model]));
    }
    let texts = std::iter::once(&request.query).chain(&request.documents);
    let inputs: Vec<Prompt> = texts.cloned().map(Prompt::Text).collect();
    let vectors = state.encoder.embed(inputs).await.map_err(renamed)?;
    let (query, documents) = vectors.vectors.split_first().ok_or_else(super::error::thread_ended)?;
    let results: Vec<Value> = ranked(query, documents)
        .into_iter()
        .take(request.top_n.unwrap_or(usize::MAX))
        .map(|(index, score)| {
            let mut result = json!({ "index": index, "relevance_score": score });
            if request.return_documents {
                result["document"] = json!({ "text": request.documents[index] });
            }
            result
        })
        .collect();
    Ok(Json(json!({
        "id": new_id("rerank"),
        "model": state.embedding_model,
        "results": results,
        "usage": { "prompt_tokens": vectors.tokens, "total_tokens": vectors.tokens },
    })))
}

/// The refusal of an input of the encoder, with the name that the input has here.
fn renamed(error: ApiError) -> ApiError {
    let place = error.param().and_then(|param| param.strip_prefix("input[")?.strip_suffix(']')?.parse().ok());
    let Some(place) = place else { return error };
    let param = match place {
        0_usize => "query".to_owned(),
        place => format!("documents[{}]", place - 1),
    };
    let message = error.message().replacen(&format!("input[{place}]"), &param, 1);
    let code = error.code();
    let named = ApiError::new(error.status(), message).with_param(param);
    match code {
        Some("context_length_exceeded") => named.with_code("context_length_exceeded"),
        _ => named.with_code("invalid_value"),
    }
}

/// Places of vectors of length 1 with their cosines to `query`, the greatest first.
fn ranked(query: &[f32], vectors: &[Vec<f32>]) -> Vec<(usize, f32)> {
    let cosine = |vector: &Vec<f32>| query.iter().zip(vector).map(|(a, b)| a * b).sum::<f32>();
    let mut scores: Vec<(usize, f32)> = vectors.iter().map(cosine).enumerate().collect();
    scores.sort_by(|a, b| b.1.total_cmp(&a.1));
    scores
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_closest_comes_first_and_places_are_kept() {
        let vectors = [vec![0.0, 1.0], vec![1.0, 0.0], vec![0.6, 0.8]];
        let places: Vec<usize> = ranked(&[1.0, 0.0], &vectors).into_iter().map(|(place, _)| place).collect();
        assert_eq!(places, [1, 2, 0]);
    }

    #[test]
    fn refusals_name_the_document() {
        let of = |param: &str| {
            let message = format!("{param} has 300 tokens");
            renamed(ApiError::context_exceeded(message, param))
        };
        assert_eq!(of("input[0]").param(), Some("query"));
        let third = of("input[3]");
        assert_eq!((third.param(), third.message()), (Some("documents[2]"), "documents[2] has 300 tokens"));
        assert_eq!(third.code(), Some("context_length_exceeded"));
    }
}
