//! Batch norm, with what follows it: a residual and an activation, forward and backward.
//!
//! A map's memory is rows of channels, so everything per channel is a vector that repeats. Narrow
//! rows are taken several at a time, with the vector repeated as often, which makes all loops long.

use std::mem::MaybeUninit;
use std::sync::{Arc, OnceLock};

use candle_core::{DType, Device, Result, Shape, Tensor, bail};

use crate::activation::activated;
use crate::channel_rows::{Gathering, Map, Statistics};
use crate::epilogue::{Activation, Float, clamp};
use crate::isa::Isa;
use crate::memory::{filled, filled_chunks};
use crate::operation::{Operation, compute, map_sizes};
use crate::packed::from_nhwc;
use crate::simd::{Kernel, Simd, dispatch};
use crate::tape::apply;
use crate::threads::{gather, gather_chunks};
use crate::transpose::channels_last;

/// Mean and variance of each channel, `[C]`.
#[derive(Debug, Clone)]
pub struct Moments {
    /// Over batch and places.
    pub mean: Tensor,
    /// Likewise, divided by the number of values.
    pub variance: Tensor,
    /// Values of a channel.
    pub count: usize,
}

/// `act(xs · scale + shift + residual)`, a scale and a shift for each channel: batch norm by stored
/// statistics, or, with a scale of one, a bias.
///
/// `xs` and `residual`: `[B, C, H, W]`; `scale` and `shift`: `[C]`. Result: like `xs`, channels last in
/// memory on the CPU. Has gradients for all four.
///
/// # Errors
/// If a shape or a type does not fit.
pub fn channel_affine(
    xs: &Tensor,
    scale: Option<&Tensor>,
    shift: &Tensor,
    residual: Option<&Tensor>,
    act: Activation,
) -> Result<Tensor> {
    const NAME: &str = "channel-affine";
    let ones;
    let scale = match scale {
        Some(scale) => scale,
        None => {
            ones = shift.ones_like()?;
            &ones
        }
    };
    let map = map_of(NAME, xs, [scale, shift], residual)?;
    if !has_kernel(xs) {
        let ys = xs.broadcast_mul(&channelwise(scale)?)?.broadcast_add(&channelwise(shift)?)?;
        return finish(ys, residual, act);
    }
    let op = Affine(Pass { map, act: if act.is_clamp() { act } else { Activation::None } });
    let (xs, scale, shift) = (channels_last(xs)?, scale.contiguous()?, shift.contiguous()?);
    let ys = match residual {
        Some(residual) => apply(op, [&xs, &scale, &shift, &channels_last(residual)?])?,
        None => apply(op, [&xs, &scale, &shift])?,
    };
    from_nhwc(&if act.is_clamp() { ys } else { activated(&ys, act)? })
}

/// Batch norm by the batch's own statistics, `act((xs − mean) / √(variance + eps) · scale + shift +
/// residual)`, and these statistics, which have no gradient of their own.
///
/// Shapes are those of [`channel_affine`]. Has gradients for all four tensors.
///
/// # Errors
/// As [`channel_affine`].
pub fn batch_norm(
    xs: &Tensor,
    scale: &Tensor,
    shift: &Tensor,
    eps: f64,
    residual: Option<&Tensor>,
    act: Activation,
) -> Result<(Tensor, Moments)> {
    const NAME: &str = "batch-norm";
    let map = map_of(NAME, xs, [scale, shift], residual)?;
    let count = map.pixels;
    if !has_kernel(xs) {
        let mean = xs.mean_keepdim((0, 2, 3))?;
        let centred = xs.broadcast_sub(&mean)?;
        let variance = centred.sqr()?.mean_keepdim((0, 2, 3))?;
        let ys = centred
            .broadcast_div(&(&variance + eps)?.sqrt()?)?
            .broadcast_mul(&channelwise(scale)?)?
            .broadcast_add(&channelwise(shift)?)?;
        let flat = |t: Tensor| t.flatten_all().map(|t| t.detach());
        let moments = Moments { mean: flat(mean)?, variance: flat(variance)?, count };
        return Ok((finish(ys, residual, act)?, moments));
    }
    let statistics = Arc::<OnceLock<Statistics>>::default();
    let pass = Pass { map, act: if act.is_clamp() { act } else { Activation::None } };
    let op = BatchNorm { pass, eps, statistics: statistics.clone() };
    let (xs, scale, shift) = (channels_last(xs)?, scale.contiguous()?, shift.contiguous()?);
    let ys = match residual {
        Some(residual) => apply(op, [&xs, &scale, &shift, &channels_last(residual)?])?,
        None => apply(op, [&xs, &scale, &shift])?,
    };
    let ys = from_nhwc(&if act.is_clamp() { ys } else { activated(&ys, act)? })?;
    let Some(Statistics { mean, variance }) = statistics.get() else {
        bail!("{NAME}: the statistics were not computed")
    };
    let tensor = |values: &[f64]| Tensor::new(values, xs.device())?.to_dtype(xs.dtype());
    Ok((ys, Moments { mean: tensor(mean)?, variance: tensor(variance)?, count }))
}

fn has_kernel(xs: &Tensor) -> bool {
    matches!(xs.device(), Device::Cpu) && matches!(xs.dtype(), DType::F32 | DType::F64)
}

fn channelwise(xs: &Tensor) -> Result<Tensor> {
    xs.reshape((1, (), 1, 1))
}

/// Residual and activation in candle's own operations.
fn finish(ys: Tensor, residual: Option<&Tensor>, act: Activation) -> Result<Tensor> {
    act.apply(&match residual {
        Some(residual) => (ys + residual)?,
        None => ys,
    })
}

/// The map of a norm's operands, if they fit.
fn map_of(name: &str, xs: &Tensor, vectors: [&Tensor; 2], residual: Option<&Tensor>) -> Result<Map> {
    let (b, c, h, w) = map_sizes(name, xs)?;
    for vector in vectors {
        if vector.dims() != [c] || vector.dtype() != xs.dtype() {
            bail!(
                "{name}: expected scale and shift of [{c}] in {:?}, got {:?} in {:?}",
                xs.dtype(),
                vector.dims(),
                vector.dtype()
            )
        }
    }
    if let Some(residual) = residual
        && (residual.dims() != xs.dims() || residual.dtype() != xs.dtype())
    {
        bail!(
            "{name}: expected a residual of {:?} in {:?}, got {:?} in {:?}",
            xs.dims(),
            xs.dtype(),
            residual.dims(),
            residual.dtype()
        )
    }
    Ok(Map { shape: (b, h, w, c).into(), pixels: b * h * w, channels: c })
}

/// What happens to a value once scale and shift are known: act(x · scale + shift + residual).
#[derive(Debug, Clone)]
struct Pass {
    map: Map,
    /// A clamp.
    act: Activation,
}

impl Pass {
    fn forward<T: Float>(
        &self,
        isa: Isa,
        xs: &[T],
        [scale, shift]: [&[T]; 2],
        residual: Option<&[T]>,
    ) -> Vec<T> {
        let (scale, shift) = (self.map.repeated(|c| scale[c]), self.map.repeated(|c| shift[c]));
        let share = self.map.share(2);
        // SAFETY: the kernel writes every value of its part.
        unsafe {
            filled_chunks(self.map.values(), share, |i, ys| {
                let part = i * share..i * share + ys.len();
                let (xs, residual) = (&xs[part.clone()], residual.map(|all| &all[part]));
                dispatch(isa, Forward { scale: &scale, shift: &shift, act: self.act, xs, residual, ys });
            })
        }
    }
}

/// The values of some pixels.
struct Forward<'a, T> {
    /// Repeated, as is the shift.
    scale: &'a [T],
    shift: &'a [T],
    act: Activation,
    xs: &'a [T],
    residual: Option<&'a [T]>,
    ys: &'a mut [MaybeUninit<T>],
}

impl<T: Float> Kernel for Forward<'_, T> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self) {
        let wide = self.scale.len();
        let (lo, hi) = self.act.bounds::<T>();
        for (i, (ys, xs)) in self.ys.chunks_mut(wide).zip(self.xs.chunks(wide)).enumerate() {
            let n = ys.len();
            let (xs, scale, shift) = (&xs[..n], &self.scale[..n], &self.shift[..n]);
            match self.residual {
                Some(residual) => {
                    let residual = &residual[i * wide..][..n];
                    for k in 0..n {
                        ys[k].write(clamp(xs[k] * scale[k] + shift[k] + residual[k], lo, hi));
                    }
                }
                None => {
                    for k in 0..n {
                        ys[k].write(clamp(xs[k] * scale[k] + shift[k], lo, hi));
                    }
                }
            }
        }
    }
}

/// [`channel_affine`] with a clamp.
struct Affine(Pass);

impl<const N: usize> Operation<N> for Affine {
    const NAME: &'static str = "channel-affine";

    fn shape(&self) -> Shape {
        self.0.map.shape.clone()
    }

    fn run<T: Float>(&self, isa: Isa, operands: [&[T]; N]) -> Vec<T> {
        self.0.forward(isa, operands[0], [operands[1], operands[2]], operands.get(3).copied())
    }

    fn gradients(&self, operands: [&Tensor; N], grad: &Tensor) -> Result<[Option<Tensor>; N]> {
        let (pass, residual) = (&self.0, operands.get(3).copied());
        let vectors = [operands[1], operands[2]];
        let keeps = match residual {
            Some(_) if pass.act != Activation::None => Keep::Passed,
            _ => Keep::Scaled,
        };
        let sums = Sums { pass: pass.clone(), keep: keeps, mean: vec![0.0; pass.map.channels] };
        let sums = sums.of(grad, operands[0], vectors, residual)?;
        let mut gradients = [const { None }; N];
        if keeps == Keep::Passed {
            let zeros = vec![0.0; pass.map.channels];
            let scale = vector(operands[1])?;
            let spread = Spread { pass: pass.clone(), factors: [scale, zeros.clone(), zeros] };
            gradients[0] = Some(compute(&spread, [&sums.kept, operands[0]])?);
        } else {
            gradients[0] = Some(sums.kept.clone());
        }
        gradients[1] = Some(sums.along_xs);
        gradients[2] = Some(sums.of_grad);
        if residual.is_some() {
            gradients[3] = Some(if keeps == Keep::Passed { sums.kept } else { grad.clone() });
        }
        Ok(gradients)
    }
}

/// [`batch_norm`] with a clamp.
struct BatchNorm {
    pass: Pass,
    eps: f64,
    /// Known from the first run on.
    statistics: Arc<OnceLock<Statistics>>,
}

impl BatchNorm {
    fn statistics<T: Float>(&self, isa: Isa, xs: &[T]) -> &Statistics {
        self.statistics.get_or_init(|| Statistics::of(&self.pass.map, isa, xs))
    }

    /// Scale and shift of values that are not normalised yet.
    fn vectors(&self, scale: &[f64], shift: &[f64], statistics: &Statistics) -> [Vec<f64>; 2] {
        let Statistics { mean, variance } = statistics;
        let scale: Vec<f64> = scale.iter().zip(variance).map(|(s, v)| s / (v + self.eps).sqrt()).collect();
        let shift = shift.iter().zip(mean).zip(&scale).map(|((shift, mean), s)| shift - mean * s).collect();
        [scale, shift]
    }
}

impl<const N: usize> Operation<N> for BatchNorm {
    const NAME: &'static str = "batch-norm";

    fn shape(&self) -> Shape {
        self.pass.map.shape.clone()
    }

    fn run<T: Float>(&self, isa: Isa, operands: [&[T]; N]) -> Vec<T> {
        let statistics = self.statistics(isa, operands[0]);
        let f64s = |values: &[T]| values.iter().map(|value| value.to_f64()).collect::<Vec<_>>();
        let vectors = self.vectors(&f64s(operands[1]), &f64s(operands[2]), statistics);
        let [scale, shift] = vectors.map(|values| values.into_iter().map(T::from_f64).collect::<Vec<_>>());
        self.pass.forward(isa, operands[0], [&scale, &shift], operands.get(3).copied())
    }

    fn gradients(&self, operands: [&Tensor; N], grad: &Tensor) -> Result<[Option<Tensor>; N]> {
        let Some(statistics) = self.statistics.get() else { bail!("batch-norm: backward before forward") };
        let (pass, residual) = (&self.pass, operands.get(3).copied());
        let xs = operands[0];
        let scales = vector(operands[1])?;
        let vectors = self.vectors(&scales, &vector(operands[2])?, statistics);
        let [scale, shift] =
            [0, 1].map(|i| Tensor::new(vectors[i].as_slice(), xs.device())?.to_dtype(xs.dtype()));
        let vectors_of_pass = [&scale?, &shift?];
        let keep = match residual {
            Some(_) if pass.act != Activation::None => Keep::Passed,
            _ => Keep::Nothing,
        };
        let sums = Sums { pass: pass.clone(), keep, mean: statistics.mean.clone() };
        let sums = sums.of(grad, xs, vectors_of_pass, residual)?;
        // With d the gradient behind the activation and x̂ the normalised value, the gradient is
        // (d − mean(d) − x̂ · mean(d · x̂)) · scale / deviation: a multiple of d, one of x, and a
        // constant.
        let (of_grad, along_xs) = (vector(&sums.of_grad)?, vector(&sums.along_xs)?);
        let count = pass.map.pixels as f64;
        let mut factors = [vectors[0].clone(), vec![], vec![]];
        let mut to_scale = vec![];
        for c in 0..pass.map.channels {
            let inverse = 1.0 / (statistics.variance[c] + self.eps).sqrt();
            let of_x = -vectors[0][c] * inverse * inverse * along_xs[c] / count;
            factors[1].push(of_x);
            factors[2].push(-vectors[0][c] * of_grad[c] / count - of_x * statistics.mean[c]);
            to_scale.push(along_xs[c] * inverse);
        }
        let spread = Spread { pass: pass.clone(), factors };
        let to_xs = match keep {
            Keep::Passed => compute(&spread, [&sums.kept, xs])?,
            _ if pass.act == Activation::None => compute(&spread, [grad, xs])?,
            _ => compute(&spread, [grad, xs, vectors_of_pass[0], vectors_of_pass[1]])?,
        };
        let mut gradients = [const { None }; N];
        gradients[0] = Some(to_xs);
        gradients[1] = Some(Tensor::new(to_scale, xs.device())?.to_dtype(xs.dtype())?);
        gradients[2] = Some(sums.of_grad);
        if residual.is_some() {
            gradients[3] = Some(if keep == Keep::Passed { sums.kept } else { grad.clone() });
        }
        Ok(gradients)
    }
}

/// A vector's values.
fn vector(xs: &Tensor) -> Result<Vec<f64>> {
    xs.to_dtype(DType::F64)?.to_vec1()
}

/// What is to be kept, beside the sums, of the gradients that pass the activation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Keep {
    Nothing,
    /// As they are.
    Passed,
    /// Times the scale.
    Scaled,
}

/// Sums over each channel of the gradients that pass the activation, and of these times the distance
/// of `xs` from `mean`.
struct Sums {
    pass: Pass,
    keep: Keep,
    mean: Vec<f64>,
}

/// What [`Sums`] found.
struct Summed {
    /// Empty where nothing was to be kept.
    kept: Tensor,
    of_grad: Tensor,
    along_xs: Tensor,
}

impl Sums {
    fn of(
        &self,
        grad: &Tensor,
        xs: &Tensor,
        [scale, shift]: [&Tensor; 2],
        residual: Option<&Tensor>,
    ) -> Result<Summed> {
        let all = match residual {
            Some(residual) => compute(self, [grad, xs, scale, shift, residual])?,
            None => compute(self, [grad, xs, scale, shift])?,
        };
        let (kept, channels) = (self.kept(), self.pass.map.channels);
        let shape = if kept > 0 { self.pass.map.shape.clone() } else { 0.into() };
        Ok(Summed {
            kept: all.narrow(0, 0, kept)?.reshape(shape)?,
            of_grad: all.narrow(0, kept, channels)?,
            along_xs: all.narrow(0, kept + channels, channels)?,
        })
    }

    fn kept(&self) -> usize {
        if self.keep == Keep::Nothing { 0 } else { self.pass.map.values() }
    }
}

impl<const N: usize> Operation<N> for Sums {
    const NAME: &'static str = "sums of gradients";

    fn shape(&self) -> Shape {
        (self.kept() + 2 * self.pass.map.channels).into()
    }

    fn run<T: Float>(&self, isa: Isa, operands: [&[T]; N]) -> Vec<T> {
        let Pass { map, act } = &self.pass;
        let vector = |i: usize| map.repeated(|c| operands[i][c]);
        let (scale, shift) = (vector(2), vector(3));
        let mean = map.repeated(|c| T::from_f64(self.mean[c]));
        let factor = if self.keep == Keep::Scaled { scale.clone() } else { map.repeated(|_| T::one()) };
        let share = map.share(6);
        let part = |i: usize, kept: Option<&mut [MaybeUninit<T>]>| {
            let part = i * share..(i * share + share).min(map.values());
            let residual = operands.get(4).map(|all| &all[part.clone()]);
            let (grad, xs) = (&operands[0][part.clone()], &operands[1][part]);
            let (scale, shift, mean, factor) = (&scale, &shift, &mean, &factor);
            dispatch(isa, Gathering { map, act: *act, grad, xs, residual, scale, shift, mean, factor, kept })
        };
        let (mut all, mut parts) = (vec![], vec![]);
        if self.keep == Keep::Nothing {
            parts = gather(map.values().div_ceil(share), |i| part(i, None));
        } else {
            // SAFETY: the kernel writes every value of what it is to keep, and the chunks are all of them.
            all = unsafe {
                filled(map.values(), |kept| {
                    let kept = kept.unwritten(map.values());
                    parts = gather_chunks(kept, share, |i, kept| part(i, Some(kept)));
                })
            };
        }
        let mut sums = [vec![0.0; map.channels], vec![0.0; map.channels]];
        for part in parts {
            for (sums, part) in sums.iter_mut().zip(part) {
                sums.iter_mut().zip(part).for_each(|(sum, value)| *sum += value);
            }
        }
        all.extend(sums.into_iter().flatten().map(T::from_f64));
        all
    }
}

/// A multiple of the gradient, where it passes the activation, plus one of `xs`, plus a constant, for
/// each channel. Operands: gradient and `xs`; scale and shift, too, where it is not known yet what passes.
struct Spread {
    pass: Pass,
    factors: [Vec<f64>; 3],
}

impl<const N: usize> Operation<N> for Spread {
    const NAME: &'static str = "spread gradients";

    fn shape(&self) -> Shape {
        self.pass.map.shape.clone()
    }

    fn run<T: Float>(&self, isa: Isa, operands: [&[T]; N]) -> Vec<T> {
        let Pass { map, act } = &self.pass;
        let factors = self.factors.each_ref().map(|factors| map.repeated(|c| T::from_f64(factors[c])));
        let vectors = operands.get(3).map(|_| [2, 3].map(|i: usize| map.repeated(|c| operands[i][c])));
        let share = map.share(4);
        // SAFETY: the kernel writes every value of its part.
        unsafe {
            filled_chunks(map.values(), share, |i, to_xs| {
                let part = i * share..i * share + to_xs.len();
                let (grad, xs) = (&operands[0][part.clone()], &operands[1][part]);
                let (factors, vectors) = (&factors, vectors.as_ref());
                dispatch(isa, Spreading { act: *act, factors, vectors, grad, xs, to_xs });
            })
        }
    }
}

/// The gradients of some pixels.
struct Spreading<'a, T> {
    act: Activation,
    /// Repeated, as are the vectors.
    factors: &'a [Vec<T>; 3],
    vectors: Option<&'a [Vec<T>; 2]>,
    grad: &'a [T],
    xs: &'a [T],
    to_xs: &'a mut [MaybeUninit<T>],
}

impl<T: Float> Kernel for Spreading<'_, T> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self) {
        let Self { act, factors, vectors, grad, xs, to_xs } = self;
        let wide = factors[0].len();
        let (lo, hi) = act.bounds::<T>();
        for ((grad, xs), to_xs) in grad.chunks(wide).zip(xs.chunks(wide)).zip(to_xs.chunks_mut(wide)) {
            let n = grad.len();
            let (xs, to_xs) = (&xs[..n], &mut to_xs[..n]);
            let [of_grad, of_xs, constant] = factors.each_ref().map(|factors| &factors[..n]);
            match vectors {
                Some(vectors) => {
                    let [scale, shift] = vectors.each_ref().map(|vector| &vector[..n]);
                    for k in 0..n {
                        let y = xs[k] * scale[k] + shift[k];
                        let passed = if y > lo && y < hi { grad[k] } else { T::ZERO };
                        to_xs[k].write(passed * of_grad[k] + xs[k] * of_xs[k] + constant[k]);
                    }
                }
                None => {
                    for k in 0..n {
                        to_xs[k].write(grad[k] * of_grad[k] + xs[k] * of_xs[k] + constant[k]);
                    }
                }
            }
        }
    }
}
