//! `sotto predict`: predictions of trees, linear models and small networks for the rows of a CSV file.

use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use clap::Args;
use serde_json::json;
use sotto_client::WirePreference;
use sotto_engine::open::{BackendChoice, BackendSpec};
use sotto_engine::predict::{OpenPredictor, PredictOptions};
use sotto_models::classical::{Prediction, Predictor, columns};
use sotto_protocol::binding::SetPreference;
use sotto_protocol::error::{Error, Result};
use sotto_storage::{Cache, FetchProgress};

use super::args::{parse_seconds, parse_secret, parse_tau};
use super::interrupt::Interrupt;
use super::output;
use super::progress::Bars;

/// Rows that are in memory at a time, and predicted together.
const CHUNK: usize = 1024;

/// Longest line of a CSV file, as bytes of a record.
const MAX_RECORD_BYTES: usize = 4 << 20;

/// What stands for a missing value, besides an empty cell.
const MISSING: [&str; 6] = ["na", "n/a", "nan", "null", "none", "?"];

/// Arguments of `sotto predict`.
#[derive(Clone, Debug, Args)]
pub struct PredictArgs {
    /// Rows to predict: a CSV file with a header, or - for standard input
    ///
    /// Columns are found by name; the model's features may be in any order, and other columns are left out. A file whose
    /// model has no names needs one column per feature, in the model's order, with or without a header.
    #[arg(short, long, env = "SOTTO_INPUT", value_name = "FILE")]
    pub input: PathBuf,

    /// Model file: XGBoost (.json), LightGBM (.txt) or ONNX (.onnx, of scikit-learn by skl2onnx); a server is started on
    /// this machine for it
    #[arg(short, long, env = "SOTTO_PREDICTOR", value_name = "FILE", required_unless_present = "server")]
    pub model: Option<PathBuf>,

    /// Server to use, as printed by `sotto serve`
    ///
    /// It holds a credential, and other users of this machine see command lines: @FILE reads it from a file.
    #[arg(long, env = "SOTTO_SERVER", value_name = "CONNECT_STRING", hide_env_values = true, value_parser = parse_secret)]
    pub server: Option<String>,

    /// Print a probability per class, too
    #[arg(long, env = "SOTTO_PROBA")]
    pub proba: bool,

    /// Print one JSON object, last, instead of CSV
    #[arg(long, env = "SOTTO_JSON")]
    pub json: bool,

    /// Arithmetic of the linear layers; all but `remote` are references that run here in clear
    #[arg(long, env = "SOTTO_BACKEND", value_enum, default_value_t = BackendChoice::Remote, hide = true)]
    pub backend: BackendChoice,

    /// Rows per batch of masks
    #[arg(long, env = "SOTTO_TAU", default_value_t = 64, value_parser = parse_tau, hide = true)]
    pub tau: usize,

    /// Parameter set: auto (the default set), default or light
    #[arg(long, env = "SOTTO_SET", value_name = "SET", default_value = "auto")]
    pub set: SetPreference,

    /// Wire form: auto, lean, stateless or full
    #[arg(long, env = "SOTTO_WIRE", value_name = "FORM", default_value = "auto")]
    pub wire: WirePreference,

    /// Accept a server whose model changed since the last visit
    #[arg(long, env = "SOTTO_ACCEPT_CHANGED_MODEL")]
    pub accept_changed_model: bool,

    /// Longest wait for masks without a sign of progress before giving up
    #[arg(
        long,
        env = "SOTTO_MASK_TIMEOUT_S",
        value_name = "SECONDS",
        default_value = "120",
        value_parser = parse_seconds
    )]
    pub mask_timeout_s: Duration,

    /// No progress bars
    #[arg(short, long, env = "SOTTO_QUIET")]
    pub quiet: bool,
}

/// Reads rows, predicts them and prints a line for each to `out`.
///
/// # Errors
/// A file that cannot be read, a table that does not fit the model, and what opening and predicting fail with.
pub fn run(args: &PredictArgs, out: &mut impl Write) -> Result<()> {
    let bars = Bars::new(args.quiet);
    let interrupt = Interrupt::install()?;
    let spec = BackendSpec::new(args.backend, args.server.as_deref())?;
    if args.server.is_some() && args.model.is_some() {
        return Err(Error::Usage("a server has its own model; leave out --model or --server".to_owned()));
    }
    let accept = args.accept_changed_model;
    let options = PredictOptions {
        tau: args.tau,
        set: args.set,
        wire: args.wire,
        accept_change: Box::new(move |_| accept),
        cancelled: interrupt.flag(),
        mask_timeout: args.mask_timeout_s,
        ..PredictOptions::new(Cache::from_env()?)
    };
    // A file that is not there is noticed before a server is started.
    let input = open_input(&args.input)?;
    let mut predictor = OpenPredictor::open(args.model.as_deref(), &spec, options, &bars)?;
    let mut table = Table::new(&args.input, input, predictor.predictor())?;
    if let Some(note) = table.left_out()
        && !args.quiet
    {
        note!("sotto: {note}");
    }
    let labels = predictor.predictor().labels().to_vec();
    if args.proba && labels.is_empty() {
        return Err(Error::Usage("--proba is for classifiers; this model predicts values".to_owned()));
    }
    let _turn = interrupt.turn();
    predictor.wait_ready(CHUNK)?;
    let (start, mut rows) = (Instant::now(), 0usize);
    let (mut predictions, mut probabilities) = (Vec::new(), Vec::new());
    bars.begin("predicting rows", None, false);
    loop {
        let chunk = table.rows(CHUNK)?;
        if chunk.is_empty() {
            break;
        }
        let predicted = predictor.predict(&chunk, &mut |done| bars.position((rows + done) as u64))?;
        rows += chunk.len();
        if predictor.verdict().is_err() {
            // Nothing more is printed, and all rows are still sent: a server that lied must not see that it was noticed.
            continue;
        }
        for prediction in predicted {
            if args.json {
                predictions.push(prediction.to_json(&labels));
                if args.proba {
                    probabilities.push(json!(of_classes(&prediction)?));
                }
            } else {
                if predictions.is_empty() {
                    output::line(out, &header(&prediction, args.proba, &labels))?;
                    predictions.push(json!(true));
                }
                output::line(out, &line(&prediction, args.proba, &labels)?)?;
            }
        }
    }
    bars.end();
    predictor.verdict()?;
    let seconds = start.elapsed().as_secs_f64();
    if args.json {
        let totals = predictor.totals();
        let mut report = json!({
            "model": predictor.name(),
            "backend": predictor.description(),
            "rows": rows,
            "predictions": predictions,
            "seconds": seconds,
            "ms_per_row": if rows == 0 { 0.0 } else { seconds * 1e3 / rows as f64 },
            "round_trips": totals.round_trips,
            "bytes": totals.bytes,
        });
        if args.proba {
            report["classes"] = json!(labels);
            report["probabilities"] = json!(probabilities);
        }
        output::line(out, &report.to_string())?;
    }
    Ok(())
}

/// The probabilities of a prediction.
fn of_classes(prediction: &Prediction) -> Result<&[f64]> {
    match prediction {
        Prediction::Class { probabilities: Some(probabilities), .. } => Ok(probabilities),
        _ => {
            Err(Error::Usage("this model gives classes without probabilities; leave out --proba".to_owned()))
        }
    }
}

fn header(prediction: &Prediction, proba: bool, labels: &[String]) -> String {
    let mut cells = match prediction {
        Prediction::Values(values) if values.len() > 1 => {
            (0..values.len()).map(|index| format!("prediction_{index}")).collect()
        }
        _ => vec!["prediction".to_owned()],
    };
    if proba {
        cells.extend(labels.iter().map(|label| format!("p_{label}")));
    }
    record(cells)
}

fn line(prediction: &Prediction, proba: bool, labels: &[String]) -> Result<String> {
    let mut cells = match prediction {
        Prediction::Values(values) => values.iter().map(f64::to_string).collect(),
        Prediction::Class { index, .. } => vec![labels[*index].clone()],
    };
    if proba {
        cells.extend(of_classes(prediction)?.iter().map(f64::to_string));
    }
    Ok(record(cells))
}

/// A line of CSV.
fn record(cells: Vec<String>) -> String {
    let quoted = cells.into_iter().map(|cell| {
        if cell.contains([',', '"', '\n', '\r']) {
            format!("\"{}\"", cell.replace('"', "\"\""))
        } else {
            cell
        }
    });
    quoted.collect::<Vec<_>>().join(",")
}

fn open_input(path: &Path) -> Result<Box<dyn Read>> {
    if path == Path::new("-") {
        return Ok(Box::new(std::io::stdin().lock()));
    }
    let file = std::fs::File::open(path).map_err(|error| Error::io("reading", path, error))?;
    Ok(Box::new(std::io::BufReader::new(file)))
}

/// The rows of a CSV file, as the model's features.
struct Table {
    path: PathBuf,
    reader: csv::Reader<Box<dyn Read>>,
    /// Per feature, its column.
    columns: Vec<usize>,
    names: Vec<String>,
    /// Columns of a record.
    width: usize,
    /// The first record, if it is no header.
    first: Option<csv::ByteRecord>,
    left_out: Vec<String>,
    reads_missing: bool,
}

impl Table {
    fn new(path: &Path, input: Box<dyn Read>, predictor: &Predictor) -> Result<Self> {
        let mut reader = csv::ReaderBuilder::new().has_headers(false).flexible(true).from_reader(input);
        let mut head = csv::ByteRecord::new();
        let path = path.to_owned();
        if !reader.read_byte_record(&mut head).map_err(|error| broken(&path, &error))? {
            return Err(wrong(&path, "is empty; expected a header and rows"));
        }
        let mut cells: Vec<String> =
            head.iter().map(|cell| String::from_utf8_lossy(cell).trim().to_owned()).collect();
        if let Some(first) = cells.first_mut() {
            *first = first.trim_start_matches('\u{feff}').to_owned();
        }
        let features = predictor.features();
        let mut table = Self {
            path,
            reader,
            columns: Vec::new(),
            names: features.iter().map(|name| (*name).to_owned()).collect(),
            width: cells.len(),
            first: None,
            left_out: Vec::new(),
            reads_missing: predictor.reads_missing(),
        };
        let found = columns::find(&features, &cells);
        let by_name = found.as_ref().is_ok_and(|found| found.by_name);
        match found {
            // Numbers that name no feature are a row of a table without a header.
            _ if !by_name
                && cells.len() == features.len()
                && cells.iter().all(|cell| number(cell).is_some()) =>
            {
                table.columns = (0..cells.len()).collect();
                table.first = Some(head);
            }
            Ok(found) => (table.columns, table.left_out) = (found.places, found.left_out),
            Err(mismatch) => return Err(wrong(&table.path, &mismatch.to_string())),
        }
        Ok(table)
    }

    fn left_out(&self) -> Option<String> {
        if self.left_out.is_empty() {
            return None;
        }
        let named = self.left_out.iter().take(5).cloned().collect::<Vec<_>>().join(", ");
        let more = if self.left_out.len() > 5 { ", .." } else { "" };
        Some(format!("not features of the model, left out: {named}{more}"))
    }

    /// Up to `count` rows; none at the end.
    fn rows(&mut self, count: usize) -> Result<Vec<Vec<f64>>> {
        let mut rows = Vec::new();
        let mut record = csv::ByteRecord::new();
        while rows.len() < count {
            match self.first.take() {
                Some(first) => record = first,
                None => {
                    if !self
                        .reader
                        .read_byte_record(&mut record)
                        .map_err(|error| broken(&self.path, &error))?
                    {
                        break;
                    }
                }
            }
            let line = record.position().map_or(1, csv::Position::line);
            if record.as_slice().len() > MAX_RECORD_BYTES {
                return Err(wrong(
                    &self.path,
                    &format!("line {line} is longer than {MAX_RECORD_BYTES} bytes"),
                ));
            }
            if record.len() != self.width {
                let reason = format!("line {line} has {} cells, the first line {}", record.len(), self.width);
                return Err(wrong(&self.path, &reason));
            }
            rows.push(self.row(&record, line)?);
        }
        Ok(rows)
    }

    fn row(&self, record: &csv::ByteRecord, line: u64) -> Result<Vec<f64>> {
        let cells = self.columns.iter().zip(&self.names);
        cells
            .map(|(&column, name)| {
                let cell = std::str::from_utf8(&record[column]).unwrap_or("\u{fffd}").trim();
                let expected = |what: &str| {
                    // What stands there may be personal; where it stands will do.
                    wrong(&self.path, &format!("line {line}, column {name}: expected {what}"))
                };
                match number(cell) {
                    None => Err(expected("a number, or nothing for a missing value")),
                    Some(value) if value.is_nan() && !self.reads_missing => {
                        Err(expected("a number; this model has no use for missing values"))
                    }
                    Some(value) if value.is_infinite() && !self.reads_missing => {
                        Err(expected("a finite number"))
                    }
                    Some(value) => Ok(value),
                }
            })
            .collect()
    }
}

/// A number; NaN for what stands for a missing one.
fn number(cell: &str) -> Option<f64> {
    if cell.is_empty() || MISSING.iter().any(|missing| cell.eq_ignore_ascii_case(missing)) {
        return Some(f64::NAN);
    }
    match cell.to_ascii_lowercase().as_str() {
        "true" => Some(1.0),
        "false" => Some(0.0),
        _ => cell.parse().ok(),
    }
}

fn wrong(path: &Path, reason: &str) -> Error {
    Error::Usage(format!("{}: {reason}", path.display()))
}

fn broken(path: &Path, error: &csv::Error) -> Error {
    wrong(path, &format!("cannot be read as CSV: {error}"))
}
