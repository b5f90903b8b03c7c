//! Scaled dot-product attention.
//!
//! One head of one image is the unit of work: its keys and values are packed as the weights of the
//! matrix product's tiles. Its queries go through them in blocks, and each block takes the keys
//! block by block with a running maximum, so that no matrix of scores exists as a whole. A window
//! of a few dozen tokens is the case of one block of each.

use std::ops::Range;

use candle_core::{CpuStorage, DType, Device, Layout, Result, Storage, Tensor, bail};

use crate::aligned::Aligned;
use crate::epilogue::Activation;
use crate::isa::Isa;
use crate::memory::{Shared, filled};
use crate::packed::tile::{Piece, Tile, compute_pixels, panels};
use crate::rows::{add_largest, exp_shifted, largest, multiply, normaliser, shift};
use crate::simd::{Kernel, Simd, dispatch, transpose4};
use crate::softmax::softmax;
use crate::threads::share_groups;

/// Most queries of a block, and most keys: their scores and the keys' panel stay in the near caches.
const QUERIES: usize = 64;
const KEYS: usize = 256;
/// Multiply–adds that are worth a task of their own.
const TASK_MACS: usize = 1 << 18;

/// `softmax(scale · q · kᵀ + Σ biases) · v` for each head.
///
/// `q`: `[B, H, N, D]`; `k`: `[B, H, M, D]`; `v`: `[B, H, M, E]`; result: `[B, H, N, E]`, whose memory
/// runs `[B, N, H, E]`, so that transposing it back and joining the heads copies nothing. Views whose
/// last dimension is contiguous, as the parts of a joint projection `[B, N, 3, H, D]` or broadcast
/// biases, are read as they lie.
///
/// Each of `biases` is `[B', H', N', M]` or has fewer dimensions, then those from the left are 1:
/// `H'` is `H` or 1, `N'` is `N` or 1, and `B'` divides `B`, where image `b` takes part `b mod B'`, as
/// shifted windows need. A query all of whose scores are −∞ gets zeros. Has gradients for all
/// operands, through candle's matrix products.
///
/// # Errors
/// If a shape does not fit, a size is 0, or `ZOO_ISA` is wrong.
pub fn attention(q: &Tensor, k: &Tensor, v: &Tensor, scale: f64, biases: &[&Tensor]) -> Result<Tensor> {
    let sizes = Sizes::new(q, k, v)?;
    let biases = biases.iter().map(|bias| sizes.four_dims(bias)).collect::<Result<Vec<_>>>()?;
    let operands = || [q, k, v].into_iter().chain(&biases);
    let has_kernel = |xs: &Tensor| matches!(xs.device(), Device::Cpu) && xs.dtype() == DType::F32;
    if !operands().all(has_kernel) || operands().any(Tensor::track_op) {
        return composed(q, k, v, scale, &biases);
    }
    let rows = |xs: &Tensor| if xs.stride()[3] == 1 { Ok(xs.clone()) } else { xs.contiguous() };
    let (q, k, v) = (rows(q)?, rows(k)?, rows(v)?);
    let biases = biases.iter().map(rows).collect::<Result<Vec<_>>>()?;
    let storages = [&q, &k, &v].map(|xs| xs.storage_and_layout().0);
    let bias_storages: Vec<_> = biases.iter().map(|bias| bias.storage_and_layout().0).collect();
    let call = Call {
        isa: Isa::current()?,
        sizes,
        scale: scale as f32,
        q: View::new(&storages[0], q.layout())?,
        k: View::new(&storages[1], k.layout())?,
        v: View::new(&storages[2], v.layout())?,
        biases: bias_storages
            .iter()
            .zip(&biases)
            .map(|(s, bias)| Bias::new(s, bias.layout()))
            .collect::<Result<_>>()?,
    };
    let ys = call.run();
    let Sizes { batch, heads, queries, values, .. } = sizes;
    Tensor::from_vec(ys, (batch, queries, heads, values), q.device())?.transpose(1, 2)
}

/// Sizes of one call.
#[derive(Debug, Clone, Copy)]
struct Sizes {
    batch: usize,
    heads: usize,
    queries: usize,
    keys: usize,
    /// Values a query and a key.
    depth: usize,
    /// Values a value.
    values: usize,
}

impl Sizes {
    fn new(q: &Tensor, k: &Tensor, v: &Tensor) -> Result<Self> {
        if let (&[batch, heads, queries, depth], &[_, _, keys, values]) = (q.dims(), v.dims())
            && k.dims() == [batch, heads, keys, depth]
            && v.dims() == [batch, heads, keys, values]
            && batch * heads * queries * keys * depth * values > 0
        {
            return Ok(Self { batch, heads, queries, keys, depth, values });
        }
        bail!(
            "attention: expected q, k and v of [B, H, N, D], [B, H, M, D] and [B, H, M, E], none of them empty, got {:?}, {:?} and {:?}",
            q.dims(),
            k.dims(),
            v.dims()
        )
    }

    /// `bias` as a view `[B', H', N', M]`.
    fn four_dims(&self, bias: &Tensor) -> Result<Tensor> {
        let mut dims = [1; 4];
        if let Some(missing) = 4usize.checked_sub(bias.rank()) {
            dims[missing..].copy_from_slice(bias.dims());
            let [batch, heads, queries, keys] = dims;
            if batch > 0
                && self.batch.is_multiple_of(batch)
                && [1, self.heads].contains(&heads)
                && [1, self.queries].contains(&queries)
                && keys == self.keys
            {
                return (0..missing).try_fold(bias.clone(), |bias, _| bias.unsqueeze(0));
            }
        }
        bail!(
            "attention: expected a bias of [{} or a divisor, {} or 1, {} or 1, {}], got {:?}",
            self.batch,
            self.heads,
            self.queries,
            self.keys,
            bias.dims()
        )
    }
}

/// In candle's matrix products and our softmax, with gradients.
fn composed(q: &Tensor, k: &Tensor, v: &Tensor, scale: f64, biases: &[Tensor]) -> Result<Tensor> {
    let mut scores = (q.contiguous()? * scale)?.matmul(&k.transpose(2, 3)?.contiguous()?)?;
    let (b, h, n, m) = scores.dims4()?;
    for bias in biases {
        let parts = bias.dim(0)?;
        scores = scores.reshape((b / parts, parts, h, n, m))?.broadcast_add(bias)?.reshape((b, h, n, m))?;
    }
    softmax(&scores, 1.0, None)?.matmul(&v.contiguous()?)
}

/// `[image, head, row, value]`, values next to each other.
#[derive(Debug, Clone, Copy)]
struct View<'a> {
    values: &'a [f32],
    image: usize,
    head: usize,
    row: usize,
}

impl<'a> View<'a> {
    fn new(storage: &'a Storage, layout: &Layout) -> Result<Self> {
        match (storage, layout.stride()) {
            (Storage::Cpu(CpuStorage::F32(values)), &[image, head, row, _]) => {
                Ok(Self { values: &values[layout.start_offset()..], image, head, row })
            }
            _ => bail!("attention: expected f32 of rank 4 on the CPU, got {:?}", layout.shape()),
        }
    }

    /// The first `len` values of a row.
    #[inline(always)]
    fn row(&self, head: Head, row: usize, len: usize) -> &'a [f32] {
        &self.values[head.image * self.image + head.head * self.head + row * self.row..][..len]
    }
}

/// A view that repeats along dimensions of size 1, and over images.
#[derive(Debug, Clone, Copy)]
struct Bias<'a> {
    view: View<'a>,
    images: usize,
}

impl<'a> Bias<'a> {
    fn new(storage: &'a Storage, layout: &Layout) -> Result<Self> {
        let mut view = View::new(storage, layout)?;
        let (images, heads, rows, _) = layout.shape().dims4()?;
        if heads == 1 {
            view.head = 0;
        }
        if rows == 1 {
            view.row = 0;
        }
        Ok(Self { view, images })
    }

    #[inline(always)]
    fn row(&self, head: Head, row: usize, len: usize) -> &'a [f32] {
        self.view.row(Head { image: head.image % self.images, ..head }, row, len)
    }
}

/// One call, outside an autograd graph.
struct Call<'a> {
    isa: Isa,
    sizes: Sizes,
    scale: f32,
    q: View<'a>,
    k: View<'a>,
    v: View<'a>,
    biases: Vec<Bias<'a>>,
}

/// The unit of work.
#[derive(Debug, Clone, Copy)]
struct Head {
    image: usize,
    head: usize,
}

impl Call<'_> {
    /// The result, `[image, query, head, value]`.
    fn run(&self) -> Vec<f32> {
        let Sizes { batch, heads, queries, keys, depth, values } = self.sizes;
        let macs = queries * keys * (depth + values);
        let blocks = queries.div_ceil(QUERIES);
        let block = queries.div_ceil(blocks);
        // SAFETY: the tasks write every query of every head, each its own.
        unsafe {
            filled(batch * heads * queries * values, |out| {
                share_groups(batch * heads, TASK_MACS.div_ceil(macs), |unit| {
                    let head = Head { image: unit / heads, head: unit % heads };
                    let packed = dispatch(self.isa, Pack { call: self, head });
                    share_groups(blocks, TASK_MACS.div_ceil(macs / blocks), |i| {
                        let queries = i * block..queries.min((i + 1) * block);
                        dispatch(self.isa, Block { call: self, head, packed: &packed, queries, out });
                    });
                });
            })
        }
    }
}

/// A head's keys and values as weights of matrix products.
struct Packed {
    /// Block by block of keys and panel by panel `[D][key]`, times the scale, padded to whole vectors.
    keys: Aligned,
    /// Added to the scores: 0, and −∞ in the padding.
    absent: Aligned,
    /// Block by block of keys and panel by panel `[key][E]`, padded with zeros.
    values: Aligned,
    /// Added to the result.
    zeros: Aligned,
}

/// The panels of a product with `columns` columns: first column and vectors.
#[inline(always)]
fn panels_of<S: Simd>(columns: usize) -> impl Iterator<Item = (usize, usize)> {
    let widest = S::TILES.iter().map(|&(vectors, _)| vectors).max().unwrap_or(1);
    let mut first = 0;
    panels(columns.div_ceil(S::LANES), widest).map(move |vectors| {
        let panel = (first, vectors);
        first += vectors * S::LANES;
        panel
    })
}

/// Packs the keys and values of a head.
struct Pack<'a> {
    call: &'a Call<'a>,
    head: Head,
}

impl Kernel for Pack<'_> {
    type Output = Packed;

    #[inline(always)]
    fn run<S: Simd>(self) -> Packed {
        let Self { call, head } = self;
        let Sizes { keys: count, depth, values: width, .. } = call.sizes;
        let (padded, padded_width) = (count.next_multiple_of(S::LANES), width.next_multiple_of(S::LANES));
        let mut keys = Aligned::zeros(depth * padded);
        let mut values = Aligned::zeros(count * padded_width);
        for from in (0..count).step_by(KEYS) {
            let len = KEYS.min(count - from);
            for (first, vectors) in panels_of::<S>(len) {
                let columns = vectors * S::LANES;
                let panel = &mut keys[(from + first) * depth..][..columns * depth];
                let present = columns.min(len - first);
                for column in (0..present).step_by(4) {
                    let key =
                        |i: usize| call.k.row(head, from + first + (column + i).min(present - 1), depth);
                    transpose(std::array::from_fn(key), call.scale, &mut panel[column..], columns);
                }
            }
            for (first, vectors) in panels_of::<S>(width) {
                let columns = vectors * S::LANES;
                let panel = &mut values[from * padded_width + first * len..][..columns * len];
                for (i, to) in panel.chunks_exact_mut(columns).enumerate() {
                    let value = &call.v.row(head, from + i, width)[first..];
                    let columns = columns.min(value.len());
                    to[..columns].copy_from_slice(&value[..columns]);
                }
            }
        }
        let mut absent = Aligned::zeros(padded);
        absent[count..].fill(f32::NEG_INFINITY);
        Packed { keys, absent, values, zeros: Aligned::zeros(padded_width) }
    }
}

/// Writes `scale` times four rows as columns next to each other, `step` values from row to row.
#[inline(always)]
fn transpose(rows: [&[f32]; 4], scale: f32, to: &mut [f32], step: usize) {
    let depth = rows[0].len();
    let whole = depth - depth % 4;
    assert!(rows.iter().all(|row| row.len() == depth) && to.len() >= (depth - 1) * step + 4);
    let [a, b, c, d] = rows;
    for from in (0..whole).step_by(4) {
        // SAFETY: four values from here on lie inside the rows; four values at each of four steps from
        // here on lie inside what is written to, as just asserted.
        unsafe {
            let block =
                [a.as_ptr().add(from), b.as_ptr().add(from), c.as_ptr().add(from), d.as_ptr().add(from)];
            transpose4(block, scale, to.as_mut_ptr().add(from * step), step);
        }
    }
    for from in whole..depth {
        to[from * step..][..4].copy_from_slice(&[a[from], b[from], c[from], d[from]].map(|x| x * scale));
    }
}

/// `out[i] = Σ rows[i][k] · weights[k] + bias`, plus what is in `out` already where it accumulates.
struct Product<'a> {
    rows: &'a [*const f32],
    depth: usize,
    /// Panel by panel `[depth][column]`.
    weights: &'a [f32],
    bias: &'a [f32],
    columns: usize,
    out: *mut f32,
    stride: usize,
    accumulate: bool,
}

impl Product<'_> {
    /// # Safety
    /// Inside [`Simd::enter`] of `S`; each row holds `depth` values; `out` is good for as many rows of
    /// `columns` values, `stride` apart, and nobody else touches them.
    #[inline(always)]
    unsafe fn compute<S: Simd>(&self) {
        for (first, vectors) in panels_of::<S>(self.columns) {
            let columns = vectors * S::LANES;
            let weights = &self.weights[first * self.depth..][..columns * self.depth];
            let bias = &self.bias[first..][..columns];
            // SAFETY: weights and bias are as long as the panel, as just checked; the rest is the
            // caller's promise.
            unsafe {
                let out = self.out.add(first);
                let tile = Tile {
                    rows: self.rows.as_ptr(),
                    row_step: 0,
                    offset: 0,
                    value_step: 1,
                    taps: 1,
                    depth: self.depth,
                    weights: weights.as_ptr(),
                    weight_step: 0,
                    bias: bias.as_ptr(),
                    out,
                    residual: if self.accumulate { out } else { std::ptr::null() },
                    stride: self.stride,
                    last: columns.min(self.columns - first) - (vectors - 1) * S::LANES,
                    act: Activation::None,
                    piece: Piece::WHOLE,
                };
                compute_pixels::<S>(tile, vectors, self.rows.len());
            }
        }
    }
}

/// Some queries of a head through all its keys.
struct Block<'a> {
    call: &'a Call<'a>,
    head: Head,
    packed: &'a Packed,
    queries: Range<usize>,
    out: Shared,
}

impl Kernel for Block<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self) {
        let Self { call, head, packed, queries, out } = self;
        let Sizes { heads, keys, depth, values, queries: all, .. } = call.sizes;
        let count = queries.len();
        let stride = heads * values;
        // SAFETY: the head's first query of this block lies inside the result.
        let out = unsafe { out.at(((head.image * all + queries.start) * heads + head.head) * values) };
        let width = KEYS.min(keys.next_multiple_of(S::LANES));
        let mut scores = Aligned::zeros(count * width);
        let query_rows: Vec<_> = queries.clone().map(|i| call.q.row(head, i, depth).as_ptr()).collect();
        // Each query's largest score so far, and the sum of its weights relative to that.
        let mut running = vec![(f32::NEG_INFINITY, 0.0); count];
        for from in (0..keys).step_by(KEYS) {
            let len = KEYS.min(keys - from);
            let padded = len.next_multiple_of(S::LANES);
            let product = Product {
                rows: &query_rows,
                depth,
                weights: &packed.keys[from * depth..],
                bias: &packed.absent[from..],
                columns: padded,
                out: scores.as_mut_ptr(),
                stride: width,
                accumulate: false,
            };
            // SAFETY: `run` is called by `S::enter`; queries hold `depth` values; the scores have room
            // for `padded` columns and are ours.
            unsafe { product.compute::<S>() };
            for (i, (scores, running)) in scores.chunks_exact_mut(width).zip(&mut running).enumerate() {
                let scores = &mut scores[..padded];
                // SAFETY: `padded` values are whole vectors; rows of the result are this block's, and
                // have been written where there was a block of keys before; S is entered.
                *running = unsafe {
                    let mut top = f32::NEG_INFINITY;
                    for bias in &call.biases {
                        let bias = bias.row(head, queries.start + i, keys);
                        top = add_largest::<S>(scores, &bias[from..from + len]);
                    }
                    if call.biases.is_empty() {
                        top = largest::<S>(scores);
                    }
                    let (before, sum) = *running;
                    let top = top.max(before);
                    let shift = shift(top);
                    let new = exp_shifted::<S>(scores, shift);
                    if from > 0 {
                        let outdated = (before - shift).exp();
                        multiply::<S>(out.add(i * stride), values, outdated);
                        (top, sum * outdated + new)
                    } else {
                        (top, new)
                    }
                };
            }
            let score_rows: Vec<_> = scores.chunks_exact(width).map(<[f32]>::as_ptr).collect();
            let product = Product {
                rows: &score_rows,
                depth: len,
                weights: &packed.values[from * packed.zeros.len()..],
                bias: &packed.zeros,
                columns: values,
                out,
                stride,
                accumulate: from > 0,
            };
            // SAFETY: as above, with this block's part of the result as the place to write.
            unsafe { product.compute::<S>() };
        }
        for (i, (_, sum)) in running.into_iter().enumerate() {
            // SAFETY: the row is this block's, and has been written; S is entered.
            unsafe { multiply::<S>(out.add(i * stride), values, normaliser(sum)) };
        }
    }
}
