//! The table of `--bin per-op`: for every operation of a decoder its share of weights and arithmetic, its time in clear
//! and its time under encryption, measured and (in a column of its own) extrapolated to the model's shape.

use std::collections::BTreeMap;

use rand::{RngExt as _, SeedableRng as _, rngs::StdRng};
use serde::Serialize;

use crate::{
    check::Checks,
    clear,
    linear_run::{LinearArgs, LinearRun},
    shapes::ModelShape,
    tfhe_ops::{self, Context, Measured, TfheSet},
};

/// What to measure.
#[derive(Clone, Debug)]
pub struct Options {
    /// Positions that attention looks back on.
    pub context: usize,
    /// Worker threads.
    pub threads: usize,
    /// Leave the 8-bit lookups out (their keys alone take a minute and 4 GB).
    pub quick: bool,
    /// Leave the split-phase rows out.
    pub skip_linear: bool,
}

/// One row of the table.
#[derive(Clone, Debug, Serialize)]
pub struct Row {
    /// `embedding`, `linear`, `norm`, `activation`, `softmax`, `attention_scores` or `attention_values`.
    pub op: &'static str,
    /// Which one: a matrix's name, `silu`, `rms_norm`, ...
    pub name: String,
    /// Whether it is the row to compare by: the split-phase layer, or 6 bits at 2^-128.
    pub headline: bool,
    /// Share of the model's weights that this operation holds (0 for option rows of an operation shown already).
    pub weight_share: f64,
    /// Share of one token's multiply-accumulates.
    pub arithmetic_share: f64,
    /// Milliseconds in clear f32 for one token, all layers of the model.
    pub clear_ms: f64,
    /// Milliseconds under encryption, measured on `measured_size`.
    pub encrypted_ms_measured: f64,
    /// What was measured.
    pub measured_size: String,
    /// Milliseconds for one token of the whole model: the measured time times `extrapolation_factor`.
    pub encrypted_ms_extrapolated: f64,
    /// Extrapolated over measured work: layers for a linear layer, bootstraps otherwise.
    pub extrapolation_factor: f64,
    /// Bits that a lookup distinguishes, or the signal-to-noise ratio of a linear layer.
    pub precision_bits: f64,
    /// Relative rms error against float.
    pub error: f64,
    /// Bootstraps of the measured run.
    pub bootstraps: usize,
    /// Parameter set.
    pub parameters: String,
    /// log2 of the failure probability of one lookup (of the layer: beyond 14 standard deviations, not stated).
    pub log2_p_fail: Option<f64>,
    /// How the input is brought to the lookup's precision.
    pub input_rounding: &'static str,
    /// Wrong answers seen when every step was looked up, of how many.
    pub wrong_lookups: Option<(usize, usize)>,
}

/// A measured table with its checks.
#[derive(Debug, Serialize)]
pub struct Report {
    /// The model's shape.
    pub model: ModelShape,
    /// Positions that attention looks back on.
    pub context: usize,
    /// Rows, headline and options.
    pub rows: Vec<Row>,
    /// Share of all weights held by linear maps (the tied embedding and head included).
    pub linear_weight_share: f64,
    /// Share of all arithmetic in linear maps.
    pub linear_arithmetic_share: f64,
    /// Key generation of each TFHE set, milliseconds, and key bytes.
    pub tfhe_keys: Vec<(String, f64, usize)>,
    /// Checks of the run.
    #[serde(skip)]
    pub checks: Checks,
}

/// Measures the table.
///
/// # Errors
/// If the model's file, candle or `--bin linear` fails. A wrong answer is a failed check, not an error.
pub fn measure(model: ModelShape, options: &Options) -> anyhow::Result<Report> {
    let mut builder = Builder::new(&model, options)?;
    if !options.skip_linear {
        builder.linear_rows()?;
    }
    builder.tfhe_rows();
    let Builder { rows, checks, tfhe_keys, .. } = builder;
    let linear_weights: f64 = model.linears.iter().map(|m| m.macs()).sum::<f64>()
        + (model.vocabulary * model.hidden) as f64 * if model.tied_head { 1.0 } else { 2.0 };
    let arithmetic = model.arithmetic(options.context);
    let mut report = Report {
        context: options.context,
        rows,
        linear_weight_share: linear_weights / model.parameters as f64,
        linear_arithmetic_share: (arithmetic.linears + arithmetic.head) / arithmetic.total(),
        model,
        tfhe_keys,
        checks,
    };
    let share = report.linear_weight_share;
    report.checks.that(
        "linear maps hold 99 % of the weights and no more than all",
        (0.99..=1.0).contains(&share),
        format!("{share:.5}"),
    );
    Ok(report)
}

struct Builder<'a> {
    model: &'a ModelShape,
    options: &'a Options,
    clear: ClearTimes,
    rows: Vec<Row>,
    checks: Checks,
    tfhe_keys: Vec<(String, f64, usize)>,
}

/// Clear times of the operations that are not linear layers.
struct ClearTimes {
    norm: f64,
    silu: f64,
    gelu: f64,
    scores: f64,
    softmax: f64,
    values: f64,
}

impl<'a> Builder<'a> {
    fn new(model: &'a ModelShape, options: &'a Options) -> anyhow::Result<Self> {
        let (scores, softmax, values) = clear::attention_ms(model, options.context)?;
        let clear = ClearTimes {
            norm: clear::norm_ms(model)?,
            silu: clear::activation_ms(model, false)?,
            gelu: clear::activation_ms(model, true)?,
            scores,
            softmax,
            values,
        };
        Ok(Self { model, options, clear, rows: Vec::new(), checks: Checks::new(), tfhe_keys: Vec::new() })
    }

    fn linear_rows(&mut self) -> anyhow::Result<()> {
        let (model, threads) = (self.model, self.options.threads);
        let mut runs: BTreeMap<(usize, usize), LinearRun> = BTreeMap::new();
        let arithmetic = model.arithmetic(self.options.context);
        // A look-up under encryption is a one-hot row times the table: part of the vocabulary measured, the rest alike.
        let part = model.vocabulary.min(4096);
        let mut parts = vec![(
            "embedding",
            "token_embd (one-hot product)",
            part,
            model.hidden,
            model.vocabulary as f64 / part as f64,
        )];
        parts.extend(model.linears.iter().map(|m| ("linear", m.name, m.d_in, m.d_out, m.count as f64)));
        parts.push(("linear", "lm_head", model.hidden, part, model.vocabulary as f64 / part as f64));
        for (op, name, d_in, d_out, factor) in parts {
            let run = match runs.get(&(d_in, d_out)) {
                Some(run) => run.clone(),
                None => {
                    eprintln!("linear {d_in} x {d_out}");
                    let run = LinearArgs::new(d_in, d_out, threads).run()?;
                    run.check(&format!("linear {d_in}x{d_out}"), &mut self.checks);
                    runs.entry((d_in, d_out)).or_insert(run).clone()
                }
            };
            let matrix = crate::shapes::Matrix { name: "", d_in, d_out, count: factor as usize };
            let weights = d_in as f64 * d_out as f64 * factor;
            // The tied head's weights are the embedding's; an untied one's are its own.
            let held = if name == "lm_head" && model.tied_head { 0.0 } else { weights };
            let macs = if op == "embedding" { 0.0 } else { weights };
            let clear_ms =
                if op == "embedding" { clear::embedding_ms(model)? } else { clear::linear_ms(&matrix)? };
            let measured = run.amortised_ms();
            self.rows.push(Row {
                op,
                name: name.to_owned(),
                headline: true,
                weight_share: held / model.parameters as f64,
                arithmetic_share: macs / arithmetic.total(),
                clear_ms,
                encrypted_ms_measured: measured,
                measured_size: format!("{d_in} x {d_out}, one token of a batch of 64"),
                encrypted_ms_extrapolated: measured * factor,
                extrapolation_factor: factor,
                precision_bits: run.number("snr_bits"),
                error: run.relative_error(),
                bootstraps: 0,
                parameters: "split-phase N2048 q50 tau64".to_owned(),
                log2_p_fail: None,
                input_rounding: "40-bit fixed point",
                wrong_lookups: None,
            });
        }
        Ok(())
    }

    fn tfhe_rows(&mut self) {
        self.all_operations(tfhe_ops::MESSAGE_2_2_2M128, false);
        self.all_operations(tfhe_ops::MESSAGE_3_3_2M128, true);
        self.activation_only(tfhe_ops::MESSAGE_2_2_2M40);
        self.activation_only(tfhe_ops::MESSAGE_3_3_2M40);
        if !self.options.quick {
            self.eight_bits();
        }
    }

    fn context(&mut self, set: TfheSet) -> Context {
        eprintln!("keys of {}", set.name);
        let context = Context::generate(set);
        self.tfhe_keys.push((set.name.to_owned(), context.keygen_ms, context.key_bytes()));
        context
    }

    /// Looks every step of a table up and notes that none was wrong.
    fn exact(&mut self, context: &Context, lookups: usize) -> (usize, usize) {
        let bits = context.set().precision_bits;
        let (wrong, of, _) = tfhe_ops::exact_lookup(context, bits, lookups);
        self.checks.that(
            format!("{}: every lookup right", context.set().name),
            wrong == 0,
            format!("{wrong} of {of} wrong"),
        );
        (wrong, of)
    }

    /// Every operation under one set; with `headline` these are the rows to compare by. The sloppy lookups ride on the
    /// same keys.
    fn all_operations(&mut self, set: TfheSet, headline: bool) {
        let context = self.context(set);
        let limit = if set.precision_bits >= 6 { 0.2 } else { 0.8 };
        let exact = self.exact(&context, 1 << set.precision_bits);
        let bits = set.precision_bits;
        let mut random = StdRng::seed_from_u64(5);
        let mut draw = |count: usize, bound: f64| -> Vec<f64> {
            (0..count).map(|_| random.random_range(-bound..bound)).collect()
        };
        let xs = draw(32, 4.0);
        let row = |name: &str, measured: &Measured| Self::lookup_row(&context, name, measured, headline);

        let silu = tfhe_ops::activation(&context, bits, None, &xs, silu);
        let gelu = tfhe_ops::activation(&context, bits, None, &xs, gelu);
        let mut silu_row = row("silu", &silu);
        silu_row.wrong_lookups = Some(exact);
        let rounded = tfhe_ops::activation(&context, bits, Some(bits - 2), &xs, self::silu);
        let mut rounded_row = row("silu", &rounded);
        rounded_row.headline = false;
        rounded_row.input_rounding = if bits == 4 { "to 2 bits first" } else { "to 4 bits first" };
        let mut gelu_row = row("gelu", &gelu);
        gelu_row.headline = false;
        let norm = tfhe_ops::rms_norm(&context, &draw(8, 2.5));
        let softmax = tfhe_ops::softmax(&context, &draw(8, 4.0));
        let keys: Vec<Vec<f64>> = (0..4).map(|_| draw(8, 1.0)).collect();
        let scores = tfhe_ops::attention_scores(&context, &draw(8, 1.0), &keys);
        let weights = softmax.want.clone();
        let columns: Vec<Vec<f64>> = (0..8).map(|_| draw(4, 1.0)).collect();
        let values = tfhe_ops::attention_values(&context, &weights, &columns);
        let rows = [
            silu_row,
            gelu_row,
            rounded_row,
            row("rms_norm", &norm),
            row("softmax", &softmax),
            row("attention_scores", &scores),
            row("attention_values", &values),
        ];
        for row in rows {
            self.checks.at_most(format!("{} {}: error", row.name, row.parameters), row.error, limit);
            self.push(row);
        }
        if bits == 4 {
            self.sloppy(&context, &xs);
        }
    }

    /// The same keys made to tell more steps than they can: faster per bit, and wrong now and then.
    fn sloppy(&mut self, context: &Context, xs: &[f64]) {
        for bits in [6, 7] {
            let (wrong, of, _) = tfhe_ops::exact_lookup(context, bits, 512);
            let log2_p_fail = context.set().log2_fresh_failure(bits);
            // Five standard deviations above what the noise formula (an upper bound) predicts.
            let expected = log2_p_fail.exp2() * of as f64;
            self.checks.at_most(
                format!("sloppy {bits}-bit lookups fail no oftener than predicted"),
                wrong as f64,
                expected + 5.0 * expected.sqrt() + 1.0,
            );
            let measured = tfhe_ops::activation(context, bits, None, xs, silu);
            let mut row = Self::lookup_row(context, "silu", &measured, false);
            row.precision_bits = f64::from(bits);
            row.log2_p_fail = Some(log2_p_fail);
            row.parameters = format!("{} (sloppy: {bits} bits asked of 4)", context.set().name);
            row.wrong_lookups = Some((wrong, of));
            self.push(row);
        }
    }

    fn activation_only(&mut self, set: TfheSet) {
        let context = self.context(set);
        let exact = self.exact(&context, 1 << set.precision_bits);
        let xs: Vec<f64> = (0..32).map(|i| f64::from(i) / 4.0 - 3.9).collect();
        let measured = tfhe_ops::activation(&context, set.precision_bits, None, &xs, silu);
        let mut row = Self::lookup_row(&context, "silu", &measured, false);
        row.wrong_lookups = Some(exact);
        self.push(row);
    }

    fn eight_bits(&mut self) {
        let context = self.context(tfhe_ops::MESSAGE_4_4_2M40);
        let exact = self.exact(&context, 16);
        let xs: Vec<f64> = (0..16).map(|i| f64::from(i) / 2.0 - 3.9).collect();
        let measured = tfhe_ops::activation(&context, 8, None, &xs, silu);
        let mut row = Self::lookup_row(&context, "silu", &measured, false);
        row.wrong_lookups = Some(exact);
        self.checks.at_most("silu at 8 bits: error", row.error, 0.05);
        self.push(row);
        let keys = [vec![0.9, -0.2, 0.35, -0.8]];
        let scores = tfhe_ops::attention_scores(&context, &[0.7, 0.6, -0.45, -0.3], &keys);
        let row = Self::lookup_row(&context, "attention_scores", &scores, false);
        self.checks.at_most("attention_scores at 8 bits: error", row.error, 0.1);
        self.push(row);
    }

    fn lookup_row(context: &Context, name: &str, measured: &Measured, headline: bool) -> Row {
        let set = context.set();
        Row {
            op: match name {
                "silu" | "gelu" => "activation",
                "rms_norm" => "norm",
                "softmax" => "softmax",
                "attention_scores" => "attention_scores",
                _ => "attention_values",
            },
            name: name.to_owned(),
            headline,
            weight_share: 0.0,
            arithmetic_share: 0.0,
            clear_ms: 0.0,
            encrypted_ms_measured: measured.ms,
            measured_size: measured.size.clone(),
            encrypted_ms_extrapolated: 0.0,
            extrapolation_factor: 0.0,
            precision_bits: f64::from(set.precision_bits),
            error: measured.error,
            bootstraps: measured.bootstraps,
            parameters: set.name.to_owned(),
            log2_p_fail: Some(set.log2_p_fail),
            input_rounding: "in the lookup",
            wrong_lookups: None,
        }
    }

    /// Fills in what depends on the model's shape and keeps the row.
    fn push(&mut self, mut row: Row) {
        let (model, context) = (self.model, self.options.context);
        let arithmetic = model.arithmetic(context);
        let dots = (model.blocks * model.heads * context * model.head_dim) as f64;
        // Bootstraps of one token of the whole model, and the row's share and clear time.
        let (bootstraps, macs, clear_ms) = match row.name.as_str() {
            "silu" => ((model.blocks * model.feed_forward) as f64, arithmetic.activation, self.clear.silu),
            "gelu" => ((model.blocks * model.feed_forward) as f64, arithmetic.activation, self.clear.gelu),
            "rms_norm" => ((model.norms() * (3 * model.hidden + 1)) as f64, arithmetic.norm, self.clear.norm),
            "softmax" => {
                ((model.blocks * model.heads * 5 * context) as f64, arithmetic.softmax, self.clear.softmax)
            }
            "attention_scores" => (2.0 * dots, arithmetic.scores, self.clear.scores),
            _ => (2.0 * dots, arithmetic.values, self.clear.values),
        };
        row.weight_share = if row.op == "norm" {
            (model.norms() * model.hidden) as f64 / model.parameters as f64
        } else {
            0.0
        };
        row.arithmetic_share = macs / arithmetic.total();
        row.clear_ms = clear_ms;
        row.extrapolation_factor = bootstraps / row.bootstraps as f64;
        row.encrypted_ms_extrapolated = row.encrypted_ms_measured * row.extrapolation_factor;
        eprintln!(
            "{} {}: {:.0} ms, error {:.3}",
            row.name, row.parameters, row.encrypted_ms_measured, row.error
        );
        self.rows.push(row);
    }
}

fn silu(x: f64) -> f64 {
    x / (1.0 + (-x).exp())
}

/// GELU by its tanh form.
fn gelu(x: f64) -> f64 {
    0.5 * x * (1.0 + (0.797_884_560_802_865_4 * (x + 0.044_715 * x * x * x)).tanh())
}
