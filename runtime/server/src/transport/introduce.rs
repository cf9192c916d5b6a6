//! Looks at each call before its message is read: a lease in the metadata introduces the connection, and a connection that
//! is not introduced has one call at a time.

use std::sync::Arc;
use std::time::Duration;

use axum::extract::{Request, State};
use axum::http::HeaderMap;
use axum::middleware::Next;
use axum::response::Response;
use tonic::metadata::MetadataMap;

use crate::Services;
use crate::auth::credentials::CredentialId;
use crate::transport::connection_auth::ConnectionAuth;
use crate::transport::grpc_status::status;
use sotto_protocol::METADATA_LEASE;
use sotto_protocol::error::{Error, Result};

/// When a stranger may try a second call.
const RETRY: Duration = Duration::from_millis(200);

/// Lets a call through or refuses it.
pub(crate) async fn introduce(
    State(services): State<Arc<Services>>,
    request: Request,
    next: Next,
) -> Response {
    let Some(auth) = request.extensions().get::<ConnectionAuth>().cloned() else {
        return next.run(request).await;
    };
    if !auth.is_introduced()
        && let Ok(credential) = lease_holder(&services, request.headers())
    {
        auth.introduce(credential);
    }
    let Some(_call) = auth.begin_call() else {
        services.metrics.refused.inc();
        let busy = Error::Busy { what: "calls of a connection without a credential", retry_after: RETRY };
        return status(&busy).into_http();
    };
    next.run(request).await
}

/// The credential of the lease in a call's metadata.
///
/// # Errors
/// [`Error::Lease`] if there is none or it does not hold.
fn lease_holder(services: &Services, headers: &HeaderMap) -> Result<CredentialId> {
    let value = headers.get(METADATA_LEASE).ok_or(Error::Lease("none was sent"))?;
    let mut only = HeaderMap::new();
    only.insert(METADATA_LEASE, value.clone());
    let metadata = MetadataMap::from_headers(only);
    let lease = metadata.get_bin(METADATA_LEASE).and_then(|value| value.to_bytes().ok());
    Ok(services.accounts.verify(&lease.ok_or(Error::Lease("malformed"))?)?.lease().credential)
}
