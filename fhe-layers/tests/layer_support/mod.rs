//! Layers with real parameters and seeded weights, both sides in one process.
#![allow(dead_code, reason = "each test binary uses its part")]

use fhe_layers::kernels::Isa;
use fhe_layers::noise::bounds;
use fhe_layers::*;
use std::ops::Range;
use std::sync::{Arc, Mutex};

/// Rows and columns of one matrix.
pub(crate) type Matrix = (usize, Range<usize>);

/// Rounds of odd shapes: one feature, one row, column ranges, nothing a multiple of anything.
pub(crate) fn odd_rounds() -> Vec<(usize, Vec<Matrix>)> {
    vec![
        (1, vec![(1, 0..1)]),
        (23, vec![(5, 0..23), (7, 3..17), (3, 22..23)]),
        (577, vec![(33, 0..577), (64, 100..577), (1, 576..577), (10, 0..577)]),
        (64, vec![(130, 0..64)]),
    ]
}

/// A model with its weights.
pub(crate) struct Model {
    pub(crate) instance: Arc<Instance>,
    pub(crate) weights: Arc<ServerWeights>,
    /// `[rounds][matrices][rows * columns]`
    pub(crate) raw: Vec<Vec<Vec<i8>>>,
}

/// splitmix64 of `seed`, for weights and activations.
pub(crate) fn mix(seed: u64) -> u64 {
    let mut z = seed.wrapping_add(0x9e37_79b9_7f4a_7c15).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 30)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

impl Model {
    /// Weights are uniform in `-limit..=limit`.
    pub(crate) fn new(tau: usize, isa: Isa, rounds: Vec<(usize, Vec<Matrix>)>, limit: u64) -> Self {
        Self::of_set(Set::Default, tau, isa, rounds, limit)
    }

    /// As [`Model::new`] with another parameter set.
    pub(crate) fn of_set(
        set: Set,
        tau: usize,
        isa: Isa,
        rounds: Vec<(usize, Vec<Matrix>)>,
        limit: u64,
    ) -> Self {
        let specs = rounds.into_iter().map(|(d_in, matrices)| RoundSpec {
            d_in,
            matrices: matrices.into_iter().map(|(rows, columns)| MatrixSpec { rows, columns }).collect(),
        });
        let params = set.params(tau).unwrap();
        let instance = Instance::with_isa(params, specs.collect(), ModelDigest([7; 32]), "odd", isa).unwrap();
        let mut seed = 0;
        let mut weights = |spec: &MatrixSpec| -> Vec<i8> {
            let draw = |_| {
                seed += 1;
                (mix(seed) % (2 * limit + 1)) as i8 - limit as i8
            };
            (0..spec.rows * spec.columns.len()).map(draw).collect()
        };
        let rounds = instance.layout().rounds();
        let raw: Vec<Vec<Vec<i8>>> =
            rounds.iter().map(|round| round.matrices.iter().map(&mut weights).collect()).collect();
        let weights = {
            let rounds: Vec<RawRound<'_>> = rounds.iter().zip(&raw).map(raw_round).collect();
            Arc::new(ServerWeights::with_isa(instance.layout(), &rounds, isa).unwrap())
        };
        Self { instance: Arc::new(instance), weights, raw }
    }

    pub(crate) fn prepare(&self, form: TableForm) -> PreparedModel {
        let (instance, weights) = (Arc::clone(&self.instance), Arc::clone(&self.weights));
        PreparedModel::prepare(instance, weights, form, &PrepareOptions::default()).unwrap()
    }

    pub(crate) fn batch(&self) -> Batch {
        Client::new(Arc::clone(&self.instance), ClientOptions::default()).new_batch().unwrap()
    }

    /// A batch whose masks have arrived.
    pub(crate) fn slots(&self, tables: &PreparedModel) -> Vec<Slot> {
        let mut batch = self.batch();
        let masks = masks(tables, &[batch.keys()], [9; 32]).remove(0);
        batch.accept_masks(0, &masks).unwrap();
        assert!(batch.masks_complete());
        batch.into_slots().unwrap()
    }

    /// A session's two sides over `tables`, with a given server secret.
    pub(crate) fn session(
        &self,
        tables: &PreparedModel,
        form: WireForm,
        secret: [u8; 32],
    ) -> (ClientSession, ServerSession) {
        let (seed, blocks) = (SessionSeed::from_os().unwrap(), self.instance.layout().blocks());
        let server = ServerSession::new(&self.instance, form, &secret, b"credential", seed).unwrap();
        let mut download = SessionDownload::new(Arc::clone(&self.instance), form, seed).unwrap();
        let half = blocks / 2;
        for range in [0..half, half..blocks] {
            for packed in tables.shared_masks(&server, range).unwrap() {
                download.accept(&packed).unwrap();
            }
        }
        let client = download.finish(&tables.shared_masks_hash(&server).unwrap()).unwrap();
        (client, server)
    }

    /// A batch of a session, ready on both sides.
    pub(crate) fn session_batch(
        &self,
        tables: &PreparedModel,
        client: &ClientSession,
        server: &ServerSession,
    ) -> (Vec<Slot>, SessionServer) {
        let maker = Client::new(Arc::clone(&self.instance), ClientOptions::default());
        let mut batch = maker.new_session_batch(client).unwrap();
        let sent = mask_words(tables, server, batch.keys());
        let mut kept = LeanBatch::new(&self.instance);
        for (block, words) in sent.iter().enumerate() {
            if server.form().keeps_words() {
                kept.words.store(block, words).unwrap();
            }
        }
        if !server.form().keeps_words() {
            let mut bytes = Vec::new();
            sent.iter().for_each(|words| words.write(&mut bytes));
            let sent = MaskWords::read_all(self.instance.params(), server.form(), &bytes).unwrap();
            batch.accept_mask_words(0, &sent).unwrap();
        }
        (batch.into_slots().unwrap(), SessionServer { kept, form: server.form() })
    }

    /// Slots of a new session's first batch, and what answers them.
    pub(crate) fn session_slots(&self, tables: &PreparedModel, form: WireForm) -> (Vec<Slot>, SessionServer) {
        let (client, server) = self.session(tables, form, [8; 32]);
        self.session_batch(tables, &client, &server)
    }

    /// Largest norm of a round's rows.
    pub(crate) fn max_row_norm(&self, round: usize) -> f64 {
        let spec = &self.instance.layout().rounds()[round];
        let rows = spec.matrices.iter().zip(&self.raw[round]);
        let rows = rows.flat_map(|(matrix, raw)| raw.chunks(matrix.columns.len()));
        rows.map(|row| row.iter().map(|&w| f64::from(w).powi(2)).sum::<f64>().sqrt()).fold(0.0, f64::max)
    }

    /// `W x` of a round, matrices one after the other.
    pub(crate) fn product<T: Copy, P: std::iter::Sum<P>>(
        &self,
        round: usize,
        x: &[T],
        multiply: impl Fn(i8, T) -> P,
    ) -> Vec<P> {
        let mut out = Vec::new();
        for (matrix, raw) in self.instance.layout().rounds()[round].matrices.iter().zip(&self.raw[round]) {
            let x = &x[matrix.columns.clone()];
            out.extend(
                raw.chunks(x.len()).map(|row| row.iter().zip(x).map(|(&w, &x)| multiply(w, x)).sum::<P>()),
            );
        }
        out
    }

    /// Seven deviations of the documented noise, relative to `max |w| |x|`, and the rounding of an `f32`.
    pub(crate) fn tolerance(&self, max_row_norm: f64) -> f64 {
        self.tolerance_in(WireForm::Full, max_row_norm)
    }

    /// As [`Model::tolerance`] in another form.
    pub(crate) fn tolerance_in(&self, form: WireForm, max_row_norm: f64) -> f64 {
        let params = self.instance.params();
        let deviation = bounds::parts(params, form, max_row_norm).total().sqrt();
        7.0 * deviation / bounds::reach(params) + 2f64.powi(-23)
    }
}

/// The server's side of one batch of a session.
pub(crate) struct SessionServer {
    pub(crate) kept: LeanBatch,
    pub(crate) form: WireForm,
}

impl SessionServer {
    /// The reply to the body of one slot, as both travel.
    pub(crate) fn answer(&self, model: &Model, slot: usize, round: usize, body: &WordBody) -> WordReply {
        let (layout, widths) = (model.instance.layout(), self.form.widths().unwrap());
        let spec = layout.round(round).unwrap();
        let bytes = body.to_bytes();
        assert_eq!(bytes.len(), self.form.body_bytes(spec.d_in));
        let words = self.form.keeps_words().then(|| self.kept.claim(layout, slot, round, &bytes).unwrap().1);
        let body = WordBody::from_bytes(widths, spec.d_in, &bytes).unwrap();
        let query = [WordQuery { body: &body, words }];
        let reply = word_half(&model.weights, round, &query, widths).unwrap().remove(0).to_bytes();
        assert_eq!(reply.len(), self.form.reply_bytes(spec.rows()));
        WordReply::from_bytes(widths, spec.rows(), &reply).unwrap()
    }
}

/// `b'` of all blocks of one batch, in order.
pub(crate) fn mask_words(
    tables: &PreparedModel,
    session: &ServerSession,
    keys: &EvaluationKeys,
) -> Vec<MaskWords> {
    let instance = tables.instance();
    let keys = ExpandedKeys::for_session(instance, keys);
    let job = WordsJob::new(&keys, session).unwrap();
    let found = Mutex::new(vec![None; instance.layout().blocks()]);
    let sink = |_: usize, block: usize, words| {
        assert!(found.lock().unwrap()[block].replace(words).is_none(), "block {block} came twice");
    };
    tables.mask_words(&[job], 0..instance.layout().blocks(), &|| true, &sink).unwrap();
    found.into_inner().unwrap().into_iter().map(Option::unwrap).collect()
}

fn raw_round<'a>((round, raw): (&RoundSpec, &'a Vec<Vec<i8>>)) -> RawRound<'a> {
    let matrices = round.matrices.iter().zip(raw);
    let matrices = matrices.map(|(spec, raw)| RawMatrix { columns: spec.columns.clone(), weights: raw });
    RawRound { matrices: matrices.collect() }
}

/// Masks of several batches in one pass, `[batches][blocks]`.
pub(crate) fn masks(tables: &PreparedModel, keys: &[&EvaluationKeys], seed: [u8; 32]) -> Vec<Vec<MaskBlock>> {
    let instance = tables.instance();
    let blocks = instance.layout().blocks();
    let expanded: Vec<ExpandedKeys> = keys.iter().map(|keys| ExpandedKeys::new(instance, keys)).collect();
    let jobs: Vec<MaskJob<'_>> = expanded.iter().map(|keys| MaskJob { keys, seed }).collect();
    let found = Mutex::new(vec![vec![None; blocks]; keys.len()]);
    let sink = |job: usize, block: usize, mask| {
        let before = found.lock().unwrap()[job][block].replace(mask);
        assert!(before.is_none(), "block {block} of job {job} came twice");
    };
    tables.mask_half(&jobs, 0..blocks, &|| true, &sink).unwrap();
    let found = found.into_inner().unwrap();
    found
        .into_iter()
        .map(|job| job.into_iter().map(|mask| mask.expect("every block comes")).collect())
        .collect()
}

/// Activations in `-1..1` with a large outlier.
pub(crate) fn activations(len: usize, seed: u64) -> Vec<f32> {
    let unit = |i: usize| mix(seed << 20 | i as u64) as i64 as f64 / 2f64.powi(63);
    (0..len).map(|i| (unit(i) * if i % 97 == 5 { 100.0 } else { 1.0 }) as f32).collect()
}
