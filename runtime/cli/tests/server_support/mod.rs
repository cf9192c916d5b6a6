//! A server on loopback with a small random model, and bare gRPC clients for it.

#![allow(dead_code, reason = "each test binary uses a part")]

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use rand::{RngExt, SeedableRng};
use sotto_client::tls;
use sotto_models::families::FamilyId;
use sotto_models::split::ModelDigest;
use sotto_models::split::manifest::{FileHash, ServerManifest};
use sotto_models::split::plan::{PlanKind, PlanRound, SplitPlan};
use sotto_protocol::METADATA_REASON;
use sotto_protocol::connect_string::ConnectString;
use sotto_protocol::wire::bodies_client::BodiesClient;
use sotto_protocol::wire::catalogue_client::CatalogueClient;
use sotto_protocol::wire::mask_jobs_client::MaskJobsClient;
use sotto_protocol::wire::{OpenLeaseReply, OpenLeaseRequest};
use sotto_server::{Form, Role, Server, ServerConfig};
use tonic::transport::Channel;
use tonic::{Request, Status};

/// Token positions per batch of the test model.
pub(crate) const TAU: usize = 64;

/// Real parameters, a small model: two rounds, 120 rows in all.
pub(crate) fn plan() -> SplitPlan {
    let rounds = vec![
        PlanRound::new("a", 96, [("a.q".to_owned(), 40, 0..96), ("a.k".to_owned(), 24, 32..96)]),
        PlanRound::new("b", 40, [("b.down".to_owned(), 56, 0..40)]),
    ];
    SplitPlan { kind: PlanKind::Plain, rounds }
}

/// The weights of matrix `index`, row-major; always the same.
pub(crate) fn weights(index: usize, count: usize) -> Vec<i8> {
    let mut rng = rand::rngs::StdRng::seed_from_u64(1000 + index as u64);
    (0..count).map(|_| rng.random_range(-127..=127)).collect()
}

/// Writes the split of the test model into `dir` and returns its digest.
pub(crate) fn write_split(dir: &Path, plan: &SplitPlan) -> [u8; 32] {
    let server = dir.join("server").join(plan.kind.as_str());
    let client = dir.join("client").join(plan.kind.as_str());
    std::fs::create_dir_all(&server).unwrap();
    std::fs::create_dir_all(&client).unwrap();
    let matrices: Vec<_> = plan.rounds.iter().flat_map(|round| &round.matrices).collect();
    let bytes: Vec<Vec<u8>> = matrices
        .iter()
        .enumerate()
        .map(|(index, matrix)| {
            let count = matrix.rows * matrix.columns.len();
            weights(index, count).into_iter().map(i8::cast_unsigned).collect()
        })
        .collect();
    let views = matrices.iter().zip(&bytes).map(|(matrix, bytes)| {
        let shape = vec![matrix.rows, matrix.columns.len()];
        (
            matrix.name.as_str(),
            safetensors::tensor::TensorView::new(safetensors::Dtype::I8, shape, bytes).unwrap(),
        )
    });
    let file = server.join("weights.safetensors");
    safetensors::serialize_to_file(views, None, &file).unwrap();
    std::fs::write(client.join("manifest.json"), b"{}").unwrap();
    std::fs::write(client.join("local.safetensors"), vec![7_u8; 600_000]).unwrap();
    let hash = FileHash::of_file(&file).unwrap();
    let manifest = ServerManifest {
        format_version: sotto_models::split::manifest::FORMAT_VERSION,
        model: "test-model".to_owned(),
        family: "llama".parse::<FamilyId>().unwrap(),
        protocol: sotto_protocol::binding::binding(TAU).unwrap(),
        plan: plan.clone(),
        weights: BTreeMap::from([("weights.safetensors".to_owned(), hash)]),
        client_files: BTreeMap::new(),
    };
    let bytes = serde_json::to_vec(&manifest).unwrap();
    std::fs::write(server.join("manifest.json"), &bytes).unwrap();
    ModelDigest::of(&bytes).0
}

/// All roles on a free port with a credential of its own.
pub(crate) fn config(split: &Path) -> ServerConfig {
    ServerConfig {
        splits: vec![split.to_owned()],
        plans: Vec::new(),
        listen: vec!["127.0.0.1:0".parse().unwrap()],
        roles: Role::ALL.to_vec(),
        form: Form::Ntt,
        threads: 2,
        state: None,
        keys: None,
        ephemeral_credential: true,
        metrics: None,
        public_address: None,
        mask_addresses: Vec::new(),
        body_addresses: Vec::new(),
        batch_memory: None,
    }
}

/// Connected stubs.
pub(crate) struct Peer {
    pub(crate) catalogue: CatalogueClient<Channel>,
    pub(crate) masks: MaskJobsClient<Channel>,
    pub(crate) bodies: BodiesClient<Channel>,
    pub(crate) credential: String,
}

impl Peer {
    /// Connects with the string's own credential.
    pub(crate) async fn new(to: &ConnectString) -> Self {
        Self::with_credential(to, to.credential.clone().unwrap_or_default()).await
    }

    /// Connects with another credential.
    pub(crate) async fn with_credential(to: &ConnectString, credential: String) -> Self {
        let channel = tls::connect(&to.address, to.pin, Duration::from_secs(5)).await.unwrap();
        Self {
            catalogue: CatalogueClient::new(channel.clone()),
            masks: MaskJobsClient::new(channel.clone()),
            bodies: BodiesClient::new(channel),
            credential,
        }
    }

    /// Adds the credential to a message.
    pub(crate) fn authorized<T>(&self, message: T) -> Request<T> {
        let mut request = Request::new(message);
        let value = format!("Bearer {}", self.credential).parse().unwrap();
        request.metadata_mut().insert("authorization", value);
        request
    }

    /// Opens a lease.
    pub(crate) async fn lease(
        &mut self,
        digest: [u8; 32],
        body_tokens: u64,
        mask_slots: u64,
    ) -> Result<OpenLeaseReply, Status> {
        let message = OpenLeaseRequest { digest: digest.to_vec().into(), body_tokens, mask_slots };
        let request = self.authorized(message);
        Ok(self.catalogue.open_lease(request).await?.into_inner())
    }
}

/// The stable word of a refusal.
pub(crate) fn reason(status: &Status) -> &str {
    status.metadata().get(METADATA_REASON).map_or("", |value| value.to_str().unwrap())
}

/// A server with the test model, in a directory that lives as long.
pub(crate) struct Running {
    pub(crate) server: Server,
    pub(crate) digest: [u8; 32],
    pub(crate) dir: tempfile::TempDir,
}

/// Starts a server with the test model.
pub(crate) fn start() -> Running {
    start_with(|_| {})
}

/// Starts a server with the test model and a changed configuration.
pub(crate) fn start_with(change: impl FnOnce(&mut ServerConfig)) -> Running {
    let dir = tempfile::tempdir().unwrap();
    let digest = write_split(dir.path(), &plan());
    let mut config = config(dir.path());
    change(&mut config);
    Running { server: Server::start(config).unwrap(), digest, dir }
}
