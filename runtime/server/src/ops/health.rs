//! `/healthz`, `/readyz` and `/metrics` over plain HTTP, for orchestrators and scrapers.

use std::sync::Arc;
use std::thread::JoinHandle;

use axum::Router;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::IntoResponse;
use axum::routing::get;

use crate::transport::listen;
use crate::{Services, spawn};
use sotto_protocol::error::{Error, Result};

/// Starts the listener if the configuration names an address.
///
/// # Errors
/// [`Error::PortInUse`] or [`Error::Io`].
pub(crate) fn spawn_http(services: &Arc<Services>) -> Result<Option<JoinHandle<()>>> {
    let Some(address) = services.config.metrics else { return Ok(None) };
    let Some(listener) = listen::bind(&[address])?.pop() else { return Ok(None) };
    let failed = |source| Error::Io { context: "start a runtime".to_owned(), source };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(failed)?;
    let services = Arc::clone(services);
    let serve = async move {
        let Ok(listener) = tokio::net::TcpListener::from_std(listener) else { return };
        let mut drain = services.lifecycle.drain_signal();
        let routes = Router::new()
            .route("/healthz", get(async || "ok\n"))
            .route("/readyz", get(ready))
            .route("/metrics", get(metrics))
            .with_state(services);
        let stopped = async move {
            drain.wait_for(|draining| *draining).await.ok();
        };
        tokio::select! {
            served = async { axum::serve(listener, routes).await } => {
                if let Err(error) = served {
                    tracing::error!(%error, "the metrics listener stopped");
                }
            }
            () = stopped => {}
        }
    };
    spawn("sotto-metrics", move || runtime.block_on(serve)).map(Some)
}

async fn ready(State(services): State<Arc<Services>>) -> impl IntoResponse {
    match (services.lifecycle.is_draining(), services.models.is_ready()) {
        (true, _) => (StatusCode::SERVICE_UNAVAILABLE, "draining\n"),
        (_, false) => (StatusCode::SERVICE_UNAVAILABLE, "loading\n"),
        _ => (StatusCode::OK, "ready\n"),
    }
}

async fn metrics(State(services): State<Arc<Services>>) -> impl IntoResponse {
    let kind = "application/openmetrics-text; version=1.0.0; charset=utf-8";
    ([(header::CONTENT_TYPE, kind)], services.metrics.to_text())
}
