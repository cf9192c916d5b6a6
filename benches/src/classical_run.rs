//! `--bin classical`: each model is trained by its own library in this run; ours predicts the same rows, encrypted, from a
//! server process over a socket.

use std::path::Path;
use std::time::Instant;

use anyhow::Context as _;
use serde::Serialize;
use serde_json::{Value, json};
use sotto_engine::open::BackendSpec;
use sotto_engine::predict::{OpenPredictor, PredictOptions};
use sotto_models::classical::Prediction;
use sotto_storage::{Cache, NoProgress};

use crate::check::Checks;
use crate::peers::{CLASSICAL, CONCRETE_ML, Driver, install};
use crate::shapes::cache_dir;
use crate::stats::{median, millis};

/// What to run.
#[derive(Clone, Debug)]
pub struct Options {
    /// Names of data sets.
    pub data: Vec<String>,
    /// Names of models.
    pub models: Vec<String>,
    /// Single predictions that are timed.
    pub singles: usize,
    /// Rows that Concrete ML predicts; 0 for none.
    pub concrete_ml: u32,
}

/// A model on a data set.
#[derive(Debug, Serialize)]
pub struct Row {
    /// Data set.
    pub data: String,
    /// Model.
    pub model: String,
    /// Test rows.
    pub rows: usize,
    /// Share of the library's predictions that are right.
    pub accuracy: f64,
    /// Its F1 score; the mean of the classes' if there are more than two.
    pub f1: f64,
    /// Share of ours that are right.
    pub accuracy_encrypted: f64,
    /// Rows with the library's own prediction.
    pub equal_to_library: usize,
    /// Rows with the prediction of the server's integers in the clear.
    pub equal_to_clear: usize,
    /// Milliseconds for one row, masks ready (median).
    pub ms_single: f64,
    /// Milliseconds per row, all test rows at once, masks made meanwhile.
    pub ms_per_row: f64,
    /// Milliseconds per row of the library, in the clear.
    pub ms_per_row_library: f64,
    /// Bytes up and down per row.
    pub bytes_per_row: f64,
    /// Seconds from nothing to the first prediction: split, server, tables, masks.
    pub start_s: f64,
    /// What Concrete ML did with the same data under TFHE, if asked for: accuracy, `ms_per_row`, `rows`, `compile_s`.
    pub concrete_ml: Option<Value>,
}

/// The report.
#[derive(Debug, Serialize)]
pub struct Report {
    /// Kind of the report.
    pub bench: &'static str,
    /// One per data set and model.
    pub results: Vec<Row>,
}

/// Trains and predicts.
///
/// # Errors
/// If the libraries cannot be installed, or a model cannot be trained or opened.
pub fn run(options: &Options, checks: &mut Checks) -> anyhow::Result<Report> {
    install(&CLASSICAL)?;
    let mut driver = Driver::start(&CLASSICAL)?;
    // In an environment of its own: it wants older versions of what the models are trained with.
    let mut peer = match options.concrete_ml {
        0 => None,
        _ => {
            install(&CONCRETE_ML)?;
            Some(Driver::start(&CONCRETE_ML)?)
        }
    };
    let directory = cache_dir()?.join("classical");
    let mut results = Vec::new();
    for data in &options.data {
        for model in &options.models {
            let request = json!({"op": "train", "data": data, "model": model, "dir": directory});
            let trained = driver.ask(&request).with_context(|| format!("{model} on {data}"))?;
            let mut row = measure(data, model, &trained, options.singles)?;
            if let Some(peer) = &mut peer
                && ["xgboost", "logistic"].contains(&model.as_str())
            {
                let rows = options.concrete_ml;
                let request =
                    json!({"op": "train", "data": data, "model": model, "dir": directory, "rows": rows});
                row.concrete_ml =
                    Some(peer.ask(&request).with_context(|| format!("Concrete ML's {model} on {data}"))?);
            }
            let label = format!("{model} on {data}");
            checks.that(
                format!("{label}: equal to the quantized clear model"),
                row.equal_to_clear == row.rows,
                format!("{} of {}", row.equal_to_clear, row.rows),
            );
            checks.at_most(
                format!("{label}: accuracy lost, points"),
                100.0 * (row.accuracy - row.accuracy_encrypted),
                0.2,
            );
            eprintln!("{}", serde_json::to_string(&row)?);
            results.push(row);
        }
    }
    Ok(Report { bench: "classical", results })
}

fn measure(data: &str, model: &str, trained: &Value, singles: usize) -> anyhow::Result<Row> {
    let text = |field: &str| trained[field].as_str().with_context(|| format!("{field} of the driver"));
    let number = |field: &str| trained[field].as_f64().with_context(|| format!("{field} of the driver"));
    let list = |field: &str| serde_json::from_value::<Vec<i64>>(trained[field].clone());
    let file = Path::new(text("model")?);
    let rows = rows(Path::new(text("rows")?))?;
    let (labels, library) = (list("labels")?, list("predictions")?);
    let options = || -> anyhow::Result<PredictOptions> { Ok(PredictOptions::new(Cache::from_env()?)) };
    let mut clear = OpenPredictor::open(Some(file), &BackendSpec::Int8, options()?, &NoProgress)?;
    let exact = clear.predict(&rows, &mut |_| ())?;
    let exact = classes(&clear, &exact)?;
    let start = Instant::now();
    let mut ours = OpenPredictor::open(Some(file), &BackendSpec::Embedded, options()?, &NoProgress)?;
    ours.predict(&rows[..1], &mut |_| ())?;
    let start_s = start.elapsed().as_secs_f64();
    let mut times = Vec::with_capacity(singles);
    for row in rows.iter().cycle().take(singles) {
        ours.wait_ready(1)?;
        let start = Instant::now();
        ours.predict(std::slice::from_ref(row), &mut |_| ())?;
        times.push(millis(start.elapsed()));
    }
    let before = ours.totals();
    let start = Instant::now();
    let predictions = ours.predict(&rows, &mut |_| ())?;
    let whole = millis(start.elapsed());
    let spent = ours.totals() - before;
    ours.verdict()?;
    let got = classes(&ours, &predictions)?;
    let same = |other: &[i64]| got.iter().zip(other).filter(|(a, b)| a == b).count();
    Ok(Row {
        data: data.to_owned(),
        model: model.to_owned(),
        rows: rows.len(),
        accuracy: number("accuracy")?,
        f1: number("f1")?,
        accuracy_encrypted: same(&labels) as f64 / rows.len() as f64,
        equal_to_library: same(&library),
        equal_to_clear: same(&exact),
        ms_single: median(&times),
        ms_per_row: whole / rows.len() as f64,
        ms_per_row_library: number("ms_per_row")?,
        bytes_per_row: (spent.bytes.up + spent.bytes.down) as f64 / rows.len() as f64,
        start_s,
        concrete_ml: None,
    })
}

/// The predicted labels.
fn classes(model: &OpenPredictor, predictions: &[Prediction]) -> anyhow::Result<Vec<i64>> {
    let labels = model.predictor().labels();
    let label = |prediction: &Prediction| match prediction {
        Prediction::Class { index, .. } => Ok(labels[*index].parse::<i64>()?),
        Prediction::Values(_) => anyhow::bail!("a classifier predicted values"),
    };
    predictions.iter().map(label).collect()
}

fn rows(path: &Path) -> anyhow::Result<Vec<Vec<f64>>> {
    let text = std::fs::read_to_string(path)?;
    let row = |line: &str| {
        line.split(',').map(|cell| Ok(cell.parse::<f64>()?)).collect::<anyhow::Result<Vec<f64>>>()
    };
    text.lines().skip(1).map(row).collect()
}
