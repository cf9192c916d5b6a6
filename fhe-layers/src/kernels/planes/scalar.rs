//! Portable form.

use super::{LINE_BYTES, Product, recombine};

/// Overwrites `out[r][token]`.
pub(super) fn product(product: &Product<'_>, out: &mut [i64]) {
    let planes = product.planes.len() / product.stride;
    let rows = product.rows.chunks_exact(product.stride);
    for (row, out) in rows.zip(out.iter_mut().skip(product.token).step_by(product.tokens)) {
        *out = 0;
        for p in 0..planes {
            let lines = product.planes.chunks_exact(LINE_BYTES).skip(p).step_by(planes);
            // At most MAX_COLUMNS products below 2^15 in magnitude: no overflow (see MAX_COLUMNS).
            let mut sum = 0;
            for (weights, line) in row.chunks_exact(LINE_BYTES).zip(lines) {
                sum += weights.iter().zip(line).map(|(&w, &v)| i32::from(w) * i32::from(v)).sum::<i32>();
            }
            recombine(out, p, sum);
        }
    }
}
