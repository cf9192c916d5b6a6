//! `anonymize proxy`.

use std::sync::Arc;

use tokio::net::TcpListener;
use zeroize::Zeroizing;

use super::args::{DetectionArgs, ProxyArgs};
use super::progress::progress;
use super::secrets::secret;
use super::{config, model_options, vault_rules, write_out};
use crate::detect::DetectOptions;
use crate::error::{Error, Result};
use crate::model::ModelDetector;
use crate::proxy::access::KeyPolicy;
use crate::proxy::scan_thread::ScanThread;
use crate::proxy::{self, ProxyOptions};
use crate::scan::{Rules, Scanner};

pub(super) fn run(args: &ProxyArgs) -> Result<()> {
    let scans = scan_thread(&args.detection)?;
    let given = secret("--key", "SOTTO_PROXY_KEY", args.key.as_deref())?;
    let is_given = given.is_some();
    let key = given.unwrap_or_else(random_key);
    let vault_rules = vault_rules(&args.detection, args.ignore_case)?;
    let default = KeyPolicy {
        name: String::new(),
        key: key.clone(),
        routes: None,
        allow_attachments: args.allow_attachments,
        hint: args.hint,
        vault_rules: vault_rules.clone(),
    };
    let keys = match &args.keys {
        Some(path) => KeyPolicy::open(path, &default, &config(&args.detection)?)?,
        None => Vec::new(),
    };
    let options = ProxyOptions {
        upstream: args.upstream.clone(),
        upstream_key: secret("--upstream-key", "SOTTO_UPSTREAM_KEY", args.upstream_key.as_deref())?,
        key: key.clone(),
        keys,
        audit: args.audit.clone(),
        allow_attachments: args.allow_attachments,
        hint: args.hint,
        vault_rules,
    };
    runtime()?.block_on(async {
        let failed = |source| Error::io_of(format!("listening on {}", args.listen), source);
        let listener = TcpListener::bind(args.listen).await.map_err(failed)?;
        let address = listener.local_addr().map_err(failed)?;
        // A key that was given is known, and what is printed may end up in a log.
        let told = match is_given {
            true => Zeroizing::new(format!(
                "base URL  http://{address}/v1\nkey       as given\nweb page  http://{address}/#key=KEY\n"
            )),
            false => Zeroizing::new(format!(
                "base URL  http://{address}/v1\nkey       {}\nweb page  http://{address}/#key={}\n",
                &*key, &*key
            )),
        };
        write_out(told.as_bytes())?;
        proxy::run(listener, scans, options, stopped()).await
    })
}

/// The scanner that arguments describe, on a thread of its own; it opens the model there.
pub(super) fn scan_thread(args: &DetectionArgs) -> Result<ScanThread> {
    let config = config(args)?;
    let rules = Arc::new(Rules::new(&config)?);
    let model = model_options(args)?;
    let quiet = args.quiet;
    let own = Arc::clone(&rules);
    ScanThread::start(rules, move || {
        // A number in a field of its own is no less personal for that.
        let detect = DetectOptions { alone: true, ..config.detect_options() };
        let detector = ModelDetector::open(&model, detect, &*progress(quiet))?;
        let detector = detector.reporting(progress(quiet));
        Ok(Scanner::new(own, Box::new(detector)))
    })
}

/// A key of 256 bits.
pub(super) fn random_key() -> Zeroizing<String> {
    let bytes: Zeroizing<[u8; 32]> = Zeroizing::new(rand::random());
    Zeroizing::new(format!("sk-anonymize-{}", &*Zeroizing::new(hex::encode(*bytes))))
}

/// The runtime of a proxy.
pub(super) fn runtime() -> Result<tokio::runtime::Runtime> {
    let built = tokio::runtime::Builder::new_multi_thread().enable_all().build();
    built.map_err(|source| Error::io_of("starting a runtime", source))
}

/// Ready when the program should stop.
async fn stopped() {
    use tokio::signal::unix::{SignalKind, signal};
    match signal(SignalKind::terminate()) {
        Ok(mut terminate) => {
            tokio::select! {
                _ = tokio::signal::ctrl_c() => {}
                _ = terminate.recv() => {}
            }
        }
        Err(_) => {
            // Without the signal's handler, its default ends the program.
            let _ = tokio::signal::ctrl_c().await;
        }
    }
}
