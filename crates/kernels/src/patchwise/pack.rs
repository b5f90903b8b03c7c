//! A patch's weights in the order that tiles read them.

use crate::simd::transpose4;

/// Weights of `[rows][depth]` as `[depth][columns]`, with zeros after the last row.
#[inline(always)]
pub(super) fn pack_rows(rows: &[f32], depth: usize, columns: usize, packed: &mut [f32]) {
    let count = rows.len() / depth;
    if count < columns {
        packed.fill(0.0);
    }
    let packed = &mut packed[..depth * columns];
    for first in (0..count).step_by(4) {
        let rows = &rows[first * depth..];
        let mut at = 0;
        if count - first >= 4 {
            while at + 4 <= depth {
                let from = std::array::from_fn(|row| rows[row * depth + at..][..4].as_ptr());
                let to = packed[at * columns + first..][..3 * columns + 4].as_mut_ptr();
                // SAFETY: four values at each place, as just cut.
                unsafe { transpose4(from, 1.0, to, columns) };
                at += 4;
            }
        }
        for (row, values) in rows.chunks_exact(depth).take(4).enumerate() {
            for at in at..depth {
                packed[at * columns + first + row] = values[at];
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_become_columns_with_zeros_behind() {
        for (count, depth, columns) in
            [(1, 1, 4), (4, 4, 4), (7, 9, 8), (16, 5, 16), (19, 10, 32), (3, 3, 16)]
        {
            let rows: Vec<f32> = (0..count * depth).map(|i| i as f32 + 1.0).collect();
            let mut packed = vec![-1.0; depth * columns];
            pack_rows(&rows, depth, columns, &mut packed);
            for at in 0..depth {
                for column in 0..columns {
                    let want = if column < count { rows[column * depth + at] } else { 0.0 };
                    assert_eq!(packed[at * columns + column], want, "{count}×{depth} in {columns} columns");
                }
            }
        }
    }
}
