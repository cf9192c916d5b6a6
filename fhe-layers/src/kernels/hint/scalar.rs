//! Portable form.

use super::{HINT_PLANES, LINE_BYTES, PANEL_POINTS, Product, QUAD, QUAD_BYTES, recombine};

pub(super) fn product(product: &Product<'_>, out: &mut [u64]) {
    let rows = product.rows.chunks_exact(product.stride);
    for (row, out) in rows.zip(out.chunks_mut(product.out_stride)) {
        let mut sums = [[0i32; PANEL_POINTS]; HINT_PLANES];
        for (w, lines) in row.chunks_exact(QUAD).zip(product.panel.chunks_exact(QUAD_BYTES)) {
            for (sums, line) in sums.iter_mut().zip(lines.chunks_exact(LINE_BYTES)) {
                for (sum, lane) in sums.iter_mut().zip(line.chunks_exact(QUAD)) {
                    *sum += w.iter().zip(lane).map(|(&w, &v)| i32::from(w) * i32::from(v)).sum::<i32>();
                }
            }
        }
        for (k, out) in out.iter_mut().take(PANEL_POINTS).enumerate() {
            *out = recombine(sums.map(|plane| plane[k]), product.modulus);
        }
    }
}
