//! The anonymizer for Python: the module `anonymize._anonymize`, of which `python/anonymize` makes a package.
//!
//! | Python | Rust |
//! |---|---|
//! | `Anonymizer` | a `Scanner`, whose callers take turns |
//! | `Vault` | a `Vault`, and whether it ignores case |
//! | `StreamRestorer` | a `StreamRestorer` with the `Scope` of what was sent |
//!
//! What `Vault.restore_answer` does, in Rust:
//!
//! ```
//! use anonymizer::vault::{Scope, Vault};
//!
//! let vault = Vault::new();
//! let scope = Scope::of_request(&vault, ["Write to [EMAIL_1]."]);
//! // The vault knows no such value.
//! assert_eq!(scope.restore("I wrote to [EMAIL_1].").text, "I wrote to [EMAIL_1].");
//! ```

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use anonymizer::config::Config;
use anonymizer::model::{BackendChoice, ModelDetector, ModelOptions};
use anonymizer::scan::{RecognizersOnly, Rules, Scanner, TextDetector};
use anonymizer::vault::operator::Operators;
use anonymizer::vault::store::VaultKey;
use anonymizer::vault::{self, Escaping, Scope, VaultRules};
use pyo3::create_exception;
use pyo3::exceptions::{PyException, PyValueError};
use pyo3::prelude::*;
use sotto_storage::NoProgress;
use zeroize::Zeroizing;

create_exception!(_anonymize, AnonymizeError, PyException, "Something went wrong.");
create_exception!(
    _anonymize,
    DetectionError,
    AnonymizeError,
    "Nothing is known about the text: it must not leave."
);

fn raised(error: impl Into<anonymizer::Error>) -> PyErr {
    let error = error.into();
    match error.exit_code() {
        2 => PyValueError::new_err(error.to_string()),
        3 => DetectionError::new_err(error.to_string()),
        _ => AnonymizeError::new_err(error.to_string()),
    }
}

/// Something personal in a text.
#[pyclass(frozen, get_all, module = "anonymize")]
struct Span {
    start: usize,
    end: usize,
    label: String,
    placeholder: String,
    score: f32,
    source: String,
}

#[pymethods]
impl Span {
    fn __repr__(&self) -> String {
        format!(
            "Span(start={}, end={}, label='{}', placeholder='{}')",
            self.start, self.end, self.label, self.placeholder
        )
    }
}

/// A text that may leave.
#[pyclass(frozen, get_all, module = "anonymize")]
struct Redacted {
    text: String,
    spans: Vec<Py<Span>>,
}

impl Redacted {
    fn new(py: Python<'_>, redacted: vault::Redacted) -> PyResult<Self> {
        let span = |placed: vault::Placed| {
            let span = Span {
                start: placed.span.start,
                end: placed.span.end,
                label: placed.span.label.to_string(),
                placeholder: placed.placeholder,
                score: placed.span.score,
                source: placed.span.source.as_str().to_owned(),
            };
            Py::new(py, span)
        };
        let spans = redacted.spans.into_iter().map(span).collect::<PyResult<_>>()?;
        Ok(Self { text: redacted.text, spans })
    }
}

#[pymethods]
impl Redacted {
    fn __str__(&self) -> String {
        self.text.clone()
    }
}

/// Placeholders and the values they stand for. It shows no values.
#[pyclass(module = "anonymize")]
struct Vault {
    inner: vault::Vault,
    ignore_case: bool,
}

fn key(key_file: Option<PathBuf>, passphrase: Option<String>) -> PyResult<VaultKey> {
    match (key_file, passphrase.map(Zeroizing::new)) {
        (Some(path), None) => VaultKey::from_file(&path).map_err(raised),
        (None, Some(words)) if !words.trim().is_empty() => Ok(VaultKey::Passphrase(words)),
        _ => Err(PyValueError::new_err("give either key_file or a passphrase that is not empty")),
    }
}

#[pymethods]
impl Vault {
    #[new]
    #[pyo3(signature = (*, ignore_case = false))]
    fn new(ignore_case: bool) -> Self {
        Self { inner: vault::Vault::new(), ignore_case }
    }

    /// Opens a saved vault.
    #[staticmethod]
    #[pyo3(signature = (path, *, key_file = None, passphrase = None))]
    fn open(path: PathBuf, key_file: Option<PathBuf>, passphrase: Option<String>) -> PyResult<Self> {
        let inner = vault::Vault::open(&path, &key(key_file, passphrase)?).map_err(raised)?;
        Ok(Self { inner, ignore_case: false })
    }

    /// Saves it, encrypted, in place of what is at the path.
    #[pyo3(signature = (path, *, key_file = None, passphrase = None))]
    fn save(&self, path: PathBuf, key_file: Option<PathBuf>, passphrase: Option<String>) -> PyResult<()> {
        self.inner.save(&path, &key(key_file, passphrase)?).map_err(raised)
    }

    /// Puts values back where placeholders stand, whatever the text is: for texts of one's own.
    fn restore(&self, text: &str) -> String {
        self.inner.restore(text).text
    }

    /// Restores an answer to redacted texts: only what these held, and nothing inside the addresses of links.
    #[pyo3(signature = (text, *, sent, json = false))]
    fn restore_answer(&self, text: &str, sent: Vec<String>, json: bool) -> String {
        self.scope(&sent).restore_as(text, escaping(json)).text
    }

    /// Values by type.
    fn counts(&self) -> BTreeMap<String, usize> {
        self.inner.counts()
    }

    fn __len__(&self) -> usize {
        self.inner.len()
    }

    fn __repr__(&self) -> String {
        format!("<Vault of {} values>", self.inner.len())
    }
}

impl Vault {
    fn scope(&self, sent: &[String]) -> Scope {
        Scope::of_request(&self.inner, sent.iter().map(String::as_str))
    }
}

fn escaping(json: bool) -> Escaping {
    if json { Escaping::Json } else { Escaping::None }
}

/// Finds personal data.
#[pyclass(frozen, module = "anonymize")]
struct Anonymizer {
    scanner: Mutex<Scanner>,
    operators: Arc<Operators>,
}

#[pymethods]
impl Anonymizer {
    #[new]
    #[pyo3(signature = (*, backend = "dense", detector = None, config = None, server = None, program = None))]
    fn new(
        py: Python<'_>,
        backend: &str,
        detector: Option<String>,
        config: Option<&str>,
        server: Option<String>,
        program: Option<PathBuf>,
    ) -> PyResult<Self> {
        let config = config.map_or_else(|| Ok(Config::default()), Config::parse).map_err(raised)?;
        let backend = match backend {
            "recognizers" => None,
            "dense" => Some(BackendChoice::Dense),
            "int8" => Some(BackendChoice::Int8),
            "encrypted" => Some(BackendChoice::Encrypted),
            _ => {
                return Err(PyValueError::new_err("backend: expected dense, int8, encrypted or recognizers"));
            }
        };
        if server.is_some() && backend != Some(BackendChoice::Encrypted) {
            return Err(PyValueError::new_err("server is for the backend encrypted"));
        }
        if backend == Some(BackendChoice::Encrypted) && server.is_none() && program.is_none() {
            return Err(PyValueError::new_err(
                "the backend encrypted needs a server, or the program anonymize to start one",
            ));
        }
        let operators = Arc::new(config.operators().map_err(raised)?);
        let rules = Arc::new(Rules::new(&config).map_err(raised)?);
        let open = || -> Result<Box<dyn TextDetector>, anonymizer::Error> {
            let Some(backend) = backend else { return Ok(Box::new(RecognizersOnly)) };
            // Fails only if a provider is installed already, which is as good.
            let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
            let defaults = ModelOptions::default();
            let detector = detector.unwrap_or_else(|| defaults.detector.clone());
            let options = ModelOptions { backend, detector, server, program, ..defaults };
            Ok(Box::new(ModelDetector::open(&options, config.detect_options(), &NoProgress)?))
        };
        let model = py.detach(open).map_err(raised)?;
        Ok(Self { scanner: Mutex::new(Scanner::new(rules, model)), operators })
    }

    /// Replaces personal data, and what the vault holds, by placeholders.
    fn redact(&self, py: Python<'_>, text: &str, vault: &mut Vault) -> PyResult<Redacted> {
        let spans = self.scan(py, text)?;
        let operators = Arc::clone(&self.operators);
        vault.inner.follow(&VaultRules { ignore_case: vault.ignore_case, operators });
        Redacted::new(py, vault.inner.redact(text, &spans).map_err(raised)?)
    }

    /// What `redact` would do with a new vault.
    fn check(&self, py: Python<'_>, text: &str) -> PyResult<Redacted> {
        self.redact(py, text, &mut Vault::new(false))
    }
}

impl Anonymizer {
    fn scan(&self, py: Python<'_>, text: &str) -> PyResult<Vec<anonymizer::detect::Span>> {
        let scan = py.detach(|| self.scanner.lock().unwrap_or_else(PoisonError::into_inner).scan(&[text]));
        Ok(scan.map_err(raised)?.spans.into_iter().next().unwrap_or_default())
    }
}

/// Restores an answer piece by piece.
#[pyclass(module = "anonymize")]
struct StreamRestorer {
    scope: Scope,
    inner: vault::StreamRestorer,
}

#[pymethods]
impl StreamRestorer {
    #[new]
    #[pyo3(signature = (vault, *, sent, json = false))]
    fn new(vault: &Vault, sent: Vec<String>, json: bool) -> Self {
        Self { scope: vault.scope(&sent), inner: vault::StreamRestorer::new(escaping(json)) }
    }

    /// Takes a piece; returns what can be shown of it.
    fn push(&mut self, text: &str) -> String {
        self.inner.push(&self.scope, text)
    }

    /// The rest.
    fn finish(&mut self) -> String {
        self.inner.finish(&self.scope)
    }
}

#[pymodule]
fn _anonymize(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add("__version__", env!("CARGO_PKG_VERSION"))?;
    module.add("AnonymizeError", module.py().get_type::<AnonymizeError>())?;
    module.add("DetectionError", module.py().get_type::<DetectionError>())?;
    module.add_class::<Span>()?;
    module.add_class::<Redacted>()?;
    module.add_class::<Vault>()?;
    module.add_class::<Anonymizer>()?;
    module.add_class::<StreamRestorer>()
}
