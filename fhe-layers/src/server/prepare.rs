//! Once per model: the hint by an integer GEMM in the NTT domain, and the packing chain down to its digits.
//!
//! `H_j = sum_i W_ji X^-f(i) A_block(i)` at evaluation point `x` is `sum_i W_ji x^-f(i) A_block(i)(x)`: an int8 matrix times
//! residues, sixteen points at a time. Packing multiplies what it packs by `phi`; the residues are multiplied by `phi^-1`
//! modulo `q` beforehand, so that the packed phase is `-(H s)` itself and nothing is multiplied by `phi` online. Rows go
//! through in chunks, so the hint never exists whole, and is dropped.

use super::digits::store_mask;
use super::table::{Filling, PreparedModel, TableForm};
use super::weights::{RoundWeights, ServerWeights};
use crate::error::Result;
use crate::instance::Instance;
use crate::kernels::HugeWords;
use crate::kernels::hint::{HintPanel, PANEL_POINTS, StridedRows, hint_panel_product};
use crate::kernels::mask_mac::MacKey;
use crate::kernels::pointwise;
use crate::packing::{Packed, Packing};
use rayon::prelude::*;
use std::ops::Range;
use std::sync::Arc;

/// Maximum rows of the hint that exist at once; fewer towards the end.
const MAX_CHUNK_ROWS: usize = 2048;

/// How preparing reports and where it runs (the current rayon pool).
pub struct PrepareOptions<'a> {
    /// Called after each chunk with `(blocks done, blocks in all)`; returning false cancels.
    pub progress: &'a (dyn Fn(usize, usize) -> bool + Sync),
}

impl Default for PrepareOptions<'_> {
    fn default() -> Self {
        Self { progress: &|_, _| true }
    }
}

/// `ka` for the chain and the mask half, in the order of the kernels.
fn key_masks(instance: &Instance) -> MacKey {
    let (ring, n) = (instance.ring(), instance.params().n());
    let polys: Vec<Vec<u64>> = (0..instance.params().levels())
        .map(|level| {
            let (mut natural, mut orbit) = (vec![0; n], vec![0; n]);
            instance.key_mask(level, &mut natural);
            ring.enter_orbit(&natural, &mut orbit);
            orbit
        })
        .collect();
    MacKey::new(ring.shape(), &polys)
}

impl PreparedModel {
    /// Prepares the tables of `weights` in `form`, on the current rayon pool.
    ///
    /// # Errors
    /// [`crate::Error::Cancelled`] when `progress` says so; [`crate::Error::Io`] when the system gives no memory.
    pub fn prepare(
        instance: Arc<Instance>,
        weights: Arc<ServerWeights>,
        form: TableForm,
        options: &PrepareOptions<'_>,
    ) -> Result<Self> {
        let (layout, phi) = (instance.layout(), instance.params().phi());
        let blocks = layout.blocks();
        let packing = Packing::new(instance.ring(), instance.params().gadget());
        let key_masks = key_masks(&instance);
        let mut public = PublicMasks::default();
        let mut tables = Filling::zeroed(&instance, form)?;
        let mut done = 0;
        while done < blocks {
            let chunk = done..done + chunk_blocks(blocks - done, phi, form, instance.params().levels());
            done = chunk.end;
            let hints = hint_rows(&instance, &weights, &mut public, chunk.start * phi..chunk.end * phi)?;
            tables.blocks_mut(&instance, chunk.clone()).into_par_iter().enumerate().for_each_init(
                || {
                    let n = instance.params().n();
                    (packing.scratch(instance.ring()), vec![0; phi * n], vec![0; n])
                },
                |(scratch, rows, mask), (index, mut block)| {
                    hints.block(index, phi, rows);
                    let ring = instance.ring();
                    let packed = Packed { hints: rows, mask, fold: block.fold };
                    packing.block(ring, &key_masks, scratch, packed, |j, level, digits, orbit| {
                        block.digits.store(ring, j, level, digits, orbit);
                    });
                    store_mask(mask, block.mask);
                },
            );
            if !(options.progress)(chunk.end, blocks) {
                return Err(crate::Error::Cancelled);
            }
        }
        Ok(tables.finish(instance))
    }
}

/// Minimum blocks of a chunk, when as many remain: every chunk fills the panels of its inputs anew.
const MIN_CHUNK_BLOCKS: usize = 2;

/// Blocks of the next chunk, of `remaining`, so that preparing needs little more memory than its result.
///
/// A row's hint takes 16 KB; its digits, filled in by the time the hint is dropped, 16 KB per level (NTT) or 8 KB and 6 KB
/// for two levels and one (compact). For a fraction `f` of what remains, hint and digits fit into the room of the tables
/// still to be filled when `f (16 + digits) <= digits`: a half and a third do with two levels, a third and a quarter with one.
fn chunk_blocks(remaining: usize, phi: usize, form: TableForm, levels: usize) -> usize {
    let part = match form {
        TableForm::Ntt if levels > 1 => remaining.div_ceil(2),
        TableForm::Ntt => remaining.div_ceil(3),
        TableForm::Compact => remaining / if levels > 1 { 3 } else { 4 },
    };
    let most = (MAX_CHUNK_ROWS / phi).max(1);
    part.max(MIN_CHUNK_BLOCKS).min(most).min(remaining)
}

/// `A` of the round in work, in orbit order.
#[derive(Default)]
struct PublicMasks {
    round: Option<usize>,
    /// `[polys][n]`
    words: Vec<u64>,
}

impl PublicMasks {
    fn load(&mut self, instance: &Instance, round: usize) {
        if self.round == Some(round) {
            return;
        }
        let n = instance.params().n();
        let polys = instance.layout().round_polys(round).len();
        self.words = vec![0; polys * n];
        self.words.par_chunks_exact_mut(n).enumerate().for_each_init(
            || vec![0; n],
            |natural, (poly, orbit)| {
                instance.public_mask(round, poly, natural);
                instance.ring().enter_orbit(natural, orbit);
            },
        );
        self.round = Some(round);
    }
}

/// Hints of a run of rows: `[panel][rows][16]`, points in orbit order.
struct HintRows {
    rows: usize,
    n: usize,
    /// A separate map: its memory goes back to the system before the next chunk, which a heap would keep.
    words: HugeWords,
}

impl HintRows {
    /// The `phi` rows of the `block`-th block of this run, `[phi][n]`.
    fn block(&self, block: usize, phi: usize, out: &mut [u64]) {
        for (r, row) in out.chunks_exact_mut(self.n).enumerate() {
            let panels = self.words.chunks_exact(self.rows * PANEL_POINTS);
            for (points, panel) in row.chunks_exact_mut(PANEL_POINTS).zip(panels) {
                points.copy_from_slice(&panel[(block * phi + r) * PANEL_POINTS..][..PANEL_POINTS]);
            }
        }
    }
}

/// Part of a matrix that falls into a run of rows.
struct Segment {
    matrix: usize,
    rows: Range<usize>,
    /// First row within the run.
    at: usize,
}

/// The hints of global rows `rows`; rows beyond the model's last are zero.
fn hint_rows(
    instance: &Instance,
    weights: &ServerWeights,
    public: &mut PublicMasks,
    rows: Range<usize>,
) -> Result<HintRows> {
    let n = instance.params().n();
    let mut hints = HintRows { rows: rows.len(), n, words: HugeWords::zeroed(rows.len() * n)? };
    for (round, spec) in weights.rounds().iter().enumerate() {
        let segments = segments(instance, spec, round, &rows);
        if segments.is_empty() {
            continue;
        }
        public.load(instance, round);
        let panels = hints.words.par_chunks_exact_mut(rows.len() * PANEL_POINTS).enumerate();
        panels.for_each_init(
            || PanelBuffers::new(spec),
            |buffers, (panel, out)| {
                buffers.values(instance, &public.words, panel * PANEL_POINTS);
                for segment in &segments {
                    let (columns, matrix) = &spec.matrices[segment.matrix];
                    let filled = buffers.panel(columns);
                    let values = &mut out[segment.at * PANEL_POINTS..];
                    let out = StridedRows { values, stride: PANEL_POINTS };
                    let modulus = instance.ring().modulus();
                    hint_panel_product(weights.isa(), matrix, segment.rows.clone(), filled, modulus, out);
                }
            },
        );
    }
    Ok(hints)
}

fn segments(instance: &Instance, spec: &RoundWeights, round: usize, run: &Range<usize>) -> Vec<Segment> {
    let mut first = instance.layout().round_rows(round).start;
    let mut found = Vec::new();
    for (matrix, (_, packed)) in spec.matrices.iter().enumerate() {
        let (start, end) = (run.start.max(first), run.end.min(first + packed.rows()));
        if start < end {
            found.push(Segment { matrix, rows: start - first..end - first, at: start - run.start });
        }
        first += packed.rows();
    }
    found
}

/// One thread's residues and byte panels at sixteen points.
struct PanelBuffers {
    d_in: usize,
    /// `[d_in][16]`
    values: Vec<u64>,
    /// A panel for each range of columns in use, and whether it holds the current points.
    panels: Vec<(Range<usize>, HintPanel, bool)>,
}

impl PanelBuffers {
    fn new(spec: &RoundWeights) -> Self {
        Self { d_in: spec.d_in, values: vec![0; spec.d_in * PANEL_POINTS], panels: Vec::new() }
    }

    /// `values[i][k] = phi^-1 x_k^-f(i) A_block(i)(x_k)` for the points at positions `first..first + 16`.
    fn values(&mut self, instance: &Instance, public: &[u64], first: usize) {
        let (ring, n, phi) = (instance.ring(), instance.params().n(), instance.params().phi());
        let modulus = ring.modulus();
        // x^-1 = -x^(n-1): the points are roots of X^n + 1.
        let points = &ring.points()[first..first + PANEL_POINTS];
        let inverses: Vec<u64> = points.iter().map(|&x| modulus.neg(modulus.pow(x, n as u64 - 1))).collect();
        // A power of two has an inverse modulo the odd q: phi^(q-2), as q is prime.
        let by_phi = modulus.pow(phi as u64, modulus.q() - 2);
        let mut powers = vec![by_phi; phi * PANEL_POINTS];
        for f in 1..phi {
            for k in 0..PANEL_POINTS {
                powers[f * PANEL_POINTS + k] = modulus.mul(powers[(f - 1) * PANEL_POINTS + k], inverses[k]);
            }
        }
        let mut repeated = vec![0; phi * PANEL_POINTS];
        for (poly, values) in self.values.chunks_mut(phi * PANEL_POINTS).enumerate() {
            let mask = &public[poly * n + first..][..PANEL_POINTS];
            repeated.chunks_exact_mut(PANEL_POINTS).for_each(|points| points.copy_from_slice(mask));
            let len = values.len();
            pointwise::mul(ring.isa(), modulus, &repeated[..len], &powers[..len], values);
        }
        self.panels.iter_mut().for_each(|(_, _, current)| *current = false);
    }

    fn panel(&mut self, columns: &Range<usize>) -> &HintPanel {
        debug_assert!(columns.end <= self.d_in, "columns of a panel");
        let index = self.panels.iter().position(|(range, _, _)| range == columns).unwrap_or_else(|| {
            self.panels.push((columns.clone(), HintPanel::new(columns.len()), false));
            self.panels.len() - 1
        });
        let (_, panel, current) = &mut self.panels[index];
        if !*current {
            panel.fill(&self.values[columns.start * PANEL_POINTS..columns.end * PANEL_POINTS]);
            *current = true;
        }
        panel
    }
}
