//! Portable form.

use super::{Product, recombine};

/// Overwrites `out[r][token]`.
pub(super) fn product(product: &Product<'_>, out: &mut [i64]) {
    let rows = product.rows.chunks_exact(product.stride);
    for (row, out) in rows.zip(out.iter_mut().skip(product.token).step_by(product.tokens)) {
        *out = 0;
        for (p, plane) in product.planes.chunks_exact(product.stride).enumerate() {
            // At most MAX_COLUMNS products below 2^15 in magnitude: no overflow (see MAX_COLUMNS).
            let sum = row.iter().zip(plane).map(|(&w, &v)| i32::from(w) * i32::from(v)).sum();
            recombine(out, p, sum);
        }
    }
}
