//! Group norm, with what follows it: an activation and an addend, forward and backward; of one map or of several whose
//! statistics are common.
//!
//! Two passes over a map: one for mean and variance of each group, one that scales, shifts, activates and adds. Between
//! them a few numbers for each image, in candle's operations, which is also how gradients get from one pass to the other.

use std::mem::MaybeUninit;
use std::sync::OnceLock;

use candle_core::{DType, Device, Result, Shape, Tensor, bail};

use crate::activation::activated;
use crate::channel_rows::{Gathering, Map, Statistics};
use crate::epilogue::{Activation, Float, clamp};
use crate::isa::Isa;
use crate::memory::filled;
use crate::operation::{Operation, add_maps, compute, map_sizes};
use crate::packed::from_nhwc;
use crate::simd::{Kernel, Simd, dispatch};
use crate::tape::apply;
use crate::threads::{gather_chunks, share_chunks};
use crate::transpose::channels_last;

const NAME: &str = "group-norm";

/// How a group norm normalises, and what follows.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct GroupNormOptions {
    /// Equal parts of the channels, each normalised by itself.
    pub groups: usize,
    /// Added to the variance.
    pub eps: f64,
    /// Applied to the scaled and shifted values, before the addend.
    pub act: Activation,
}

/// `act((xs − mean) / √(variance + eps) · weight + bias) + addend`, mean and variance (divided by the number of values) of
/// each image's group of channels: Wu and He, "Group Normalization", ECCV 2018.
///
/// `xs` and `addend`: `[B, C, H, W]`; `weight` and `bias`: `[C]`. Result: like `xs`, channels last in memory on the CPU. Has
/// gradients for all four.
///
/// # Errors
/// If the groups do not divide the channels, or a shape or a type does not fit.
pub fn group_norm(
    xs: &Tensor,
    weight: &Tensor,
    bias: &Tensor,
    options: GroupNormOptions,
    addend: Option<&Tensor>,
) -> Result<Tensor> {
    check(xs, weight, bias, options, addend)?;
    let (mean, variance) = Measured::of(xs, options.groups)?.moments()?;
    apply_norm(xs, &affine(&mean, &variance, weight, bias, options)?, options.act, addend)
}

/// [`group_norm`] of several maps by the statistics of all of them together, as if their places lay in one map. Result: a map
/// for each.
///
/// `maps`: `[B, C, h_i, w_i]`; `addends`: none, or one for each map, of its shape.
///
/// # Errors
/// As [`group_norm`], and if there is no map, or they differ in batch, channels or type.
pub fn group_norm_jointly(
    maps: &[&Tensor],
    weight: &Tensor,
    bias: &Tensor,
    options: GroupNormOptions,
    addends: &[&Tensor],
) -> Result<Vec<Tensor>> {
    let Some(first) = maps.first() else { bail!("{NAME}: expected at least one map, got none") };
    if !addends.is_empty() && addends.len() != maps.len() {
        bail!("{NAME}: expected an addend for each of {} maps, got {}", maps.len(), addends.len())
    }
    let addend = |i: usize| addends.get(i).copied();
    let mut measured = Vec::with_capacity(maps.len());
    for (i, map) in maps.iter().enumerate() {
        check(map, weight, bias, options, addend(i))?;
        if map.dims()[..2] != first.dims()[..2] {
            bail!("{NAME}: maps of {:?} and {:?} have no statistics in common", first.dims(), map.dims())
        }
        measured.push(Measured::of(map, options.groups)?);
    }
    let (mean, variance) = joined(&measured)?;
    let affine = affine(&mean, &variance, weight, bias, options)?;
    maps.iter().enumerate().map(|(i, map)| apply_norm(map, &affine, options.act, addend(i))).collect()
}

fn check(
    xs: &Tensor,
    weight: &Tensor,
    bias: &Tensor,
    options: GroupNormOptions,
    addend: Option<&Tensor>,
) -> Result<()> {
    let (_, c, _, _) = map_sizes(NAME, xs)?;
    let GroupNormOptions { groups, .. } = options;
    if groups == 0 || !c.is_multiple_of(groups) {
        bail!("{NAME}: {groups} groups do not divide {c} channels")
    }
    for vector in [weight, bias] {
        if vector.dims() != [c] || vector.dtype() != xs.dtype() {
            bail!(
                "{NAME}: expected weight and bias of [{c}] in {:?}, got {:?} in {:?}",
                xs.dtype(),
                vector.dims(),
                vector.dtype()
            )
        }
    }
    match addend {
        Some(addend) if addend.dims() != xs.dims() || addend.dtype() != xs.dtype() => bail!(
            "{NAME}: expected an addend of {:?} in {:?}, got {:?} in {:?}",
            xs.dims(),
            xs.dtype(),
            addend.dims(),
            addend.dtype()
        ),
        _ => Ok(()),
    }
}

fn has_kernel(xs: &Tensor) -> bool {
    matches!(xs.device(), Device::Cpu) && matches!(xs.dtype(), DType::F32 | DType::F64)
}

/// Means and variances of a map, `[2, B, G]`, and the values of a group.
struct Measured {
    moments: Tensor,
    count: usize,
}

impl Measured {
    fn of(xs: &Tensor, groups: usize) -> Result<Self> {
        let (batch, channels, height, width) = map_sizes(NAME, xs)?;
        let count = height * width * (channels / groups);
        let moments = if has_kernel(xs) {
            let images = Images { batch, pixels: height * width, channels };
            apply(Moments { images, groups, means: OnceLock::new() }, [&channels_last(xs)?])?
        } else {
            // Short floats would overflow and round: their moments are wide.
            let wide = if xs.dtype() == DType::F64 { DType::F64 } else { DType::F32 };
            let rows = xs.contiguous()?.reshape((batch, groups, count))?.to_dtype(wide)?;
            let mean = rows.mean_keepdim(2)?;
            let variance = rows.broadcast_sub(&mean)?.sqr()?.mean(2)?;
            Tensor::stack(&[mean.squeeze(2)?, variance], 0)?
        };
        Ok(Self { moments, count })
    }

    /// `[B, G]` each.
    fn moments(&self) -> Result<(Tensor, Tensor)> {
        Ok((self.moments.get(0)?, self.moments.get(1)?))
    }
}

/// Mean and variance of all maps together: with n values of N, `mean = Σ n/N · meanᵢ` and
/// `variance = Σ n/N · (varianceᵢ + (meanᵢ − mean)²)`.
fn joined(maps: &[Measured]) -> Result<(Tensor, Tensor)> {
    let all: usize = maps.iter().map(|map| map.count).sum();
    let share = |map: &Measured| map.count as f64 / all as f64;
    let sum = |parts: Vec<Tensor>| Tensor::stack(&parts, 0)?.sum(0);
    let moments = maps.iter().map(Measured::moments).collect::<Result<Vec<_>>>()?;
    let parts = maps.iter().zip(&moments).map(|(map, (mean, _))| mean * share(map));
    let mean = sum(parts.collect::<Result<_>>()?)?;
    let parts = maps
        .iter()
        .zip(&moments)
        .map(|(map, (part, variance))| (variance + (part - &mean)?.sqr()?)? * share(map));
    let variance = sum(parts.collect::<Result<_>>()?)?;
    Ok((mean, variance))
}

/// Factor and offset of each channel of each image, `[B, C]`.
fn affine(
    mean: &Tensor,
    variance: &Tensor,
    weight: &Tensor,
    bias: &Tensor,
    options: GroupNormOptions,
) -> Result<[Tensor; 2]> {
    let ((batch, groups), channels) = (mean.dims2()?, weight.elem_count());
    let dtype = mean.dtype();
    let per_channel = |weights: &Tensor| weights.to_dtype(dtype)?.reshape((1, groups, channels / groups));
    let inverse = (variance + options.eps)?.sqrt()?.recip()?.unsqueeze(2)?;
    let scale = inverse.broadcast_mul(&per_channel(weight)?)?;
    let shift = mean.unsqueeze(2)?.broadcast_mul(&scale)?.neg()?.broadcast_add(&per_channel(bias)?)?;
    Ok([scale.reshape((batch, channels))?, shift.reshape((batch, channels))?])
}

/// The second pass.
fn apply_norm(
    xs: &Tensor,
    [scale, shift]: &[Tensor; 2],
    act: Activation,
    addend: Option<&Tensor>,
) -> Result<Tensor> {
    let (batch, channels, height, width) = map_sizes(NAME, xs)?;
    if !has_kernel(xs) {
        let of_image = |vector: &Tensor| vector.reshape((batch, channels, 1, 1));
        let ys = xs.to_dtype(scale.dtype())?.broadcast_mul(&of_image(scale)?)?;
        let ys = act.apply(&ys.broadcast_add(&of_image(shift)?)?.to_dtype(xs.dtype())?)?;
        return match addend {
            Some(addend) => ys + addend,
            None => Ok(ys),
        };
    }
    let images = Images { batch, pixels: height * width, channels };
    let shape = (batch, height, width, channels).into();
    let xs = channels_last(xs)?;
    if !act.is_clamp() {
        let ys = apply(Normalise { images, shape, act: Activation::None }, [&xs, scale, shift])?;
        let ys = activated(&from_nhwc(&ys)?, act)?;
        return match addend {
            Some(addend) => add_maps(&ys, addend),
            None => Ok(ys),
        };
    }
    let op = Normalise { images, shape, act };
    from_nhwc(&match addend {
        Some(addend) => apply(op, [&xs, scale, shift, &channels_last(addend)?])?,
        None => apply(op, [&xs, scale, shift])?,
    })
}

/// A map as images of rows of channels.
#[derive(Debug, Clone, Copy)]
struct Images {
    batch: usize,
    pixels: usize,
    channels: usize,
}

impl Images {
    /// Values of an image.
    fn len(&self) -> usize {
        self.pixels * self.channels
    }

    /// One of them.
    fn map(&self) -> Map {
        let Self { pixels, channels, .. } = *self;
        Map { shape: (pixels, channels).into(), pixels, channels }
    }
}

/// `[B, H, W, C]` → `[2, B, G]`: means, and variances.
struct Moments {
    images: Images,
    groups: usize,
    /// Known from the first run on.
    means: OnceLock<Vec<f64>>,
}

impl Moments {
    fn of_group(&self) -> usize {
        self.images.channels / self.groups
    }
}

impl Operation<1> for Moments {
    const NAME: &'static str = "moments of groups";

    fn shape(&self) -> Shape {
        (2, self.images.batch, self.groups).into()
    }

    fn run<T: Float>(&self, isa: Isa, [xs]: [&[T]; 1]) -> Vec<T> {
        let (map, of_group) = (self.images.map(), self.of_group());
        let (mut means, mut variances) = (vec![], vec![]);
        for xs in xs.chunks_exact(self.images.len()) {
            let channels = Statistics::of(&map, isa, xs);
            let groups = channels.mean.chunks_exact(of_group).zip(channels.variance.chunks_exact(of_group));
            for (mean, variance) in groups {
                let of_all = mean.iter().sum::<f64>() / of_group as f64;
                let squares = mean.iter().zip(variance).map(|(m, v)| v + (m - of_all) * (m - of_all));
                variances.push(squares.sum::<f64>() / of_group as f64);
                means.push(of_all);
            }
        }
        let moments = means.iter().chain(&variances).map(|&value| T::from_f64(value)).collect();
        // A second run finds the same.
        let _ = self.means.set(means);
        moments
    }

    fn gradients(&self, [xs]: [&Tensor; 1], grad: &Tensor) -> Result<[Option<Tensor>; 1]> {
        let Some(means) = self.means.get() else { bail!("{NAME}: backward before forward") };
        // With g the gradient of the mean, h the variance's and n values, a value's is (g + 2 h (x − mean)) / n.
        let grad: Vec<f64> = grad.flatten_all()?.to_dtype(DType::F64)?.to_vec1()?;
        let (to_mean, to_variance) = grad.split_at(means.len());
        let count = (self.images.pixels * self.of_group()) as f64;
        let scale: Vec<f64> = to_variance.iter().map(|h| 2.0 * h / count).collect();
        let shift = to_mean.iter().zip(means).zip(&scale).map(|((g, mean), scale)| g / count - scale * mean);
        let shape = (self.images.batch, self.images.channels);
        let per_channel = |values: Vec<f64>| {
            let channels = values.iter().flat_map(|&value| std::iter::repeat_n(value, self.of_group()));
            Tensor::from_vec(channels.collect::<Vec<_>>(), shape, xs.device())?.to_dtype(xs.dtype())
        };
        let (shift, scale) = (per_channel(shift.collect())?, per_channel(scale)?);
        let op = Normalise { images: self.images, shape: xs.shape().clone(), act: Activation::None };
        Ok([Some(compute(&op, [xs, &scale, &shift])?)])
    }
}

/// `act(xs · scale + shift) + addend`, scale and shift of each channel of each image, `[B, C]`; `act` is a clamp.
struct Normalise {
    images: Images,
    shape: Shape,
    act: Activation,
}

impl<const N: usize> Operation<N> for Normalise {
    const NAME: &'static str = NAME;

    fn shape(&self) -> Shape {
        self.shape.clone()
    }

    fn run<T: Float>(&self, isa: Isa, operands: [&[T]; N]) -> Vec<T> {
        let (images, map) = (self.images, self.images.map());
        let (share, c) = (map.share(3), images.channels);
        let (xs, addend) = (operands[0], operands.get(3).copied());
        // SAFETY: the images are the whole result, and the kernel writes every value of its part of one.
        unsafe {
            filled(images.batch * images.len(), |ys| {
                let ys = ys.unwritten(images.batch * images.len());
                for (image, ys) in ys.chunks_exact_mut(images.len()).enumerate() {
                    let vector = |i: usize| map.repeated(|channel| operands[i][image * c + channel]);
                    let (scale, shift) = (vector(1), vector(2));
                    share_chunks(ys, share, |i, ys| {
                        let part = image * images.len() + i * share;
                        let part = part..part + ys.len();
                        let (xs, addend) = (&xs[part.clone()], addend.map(|all| &all[part]));
                        dispatch(
                            isa,
                            Forward { scale: &scale, shift: &shift, act: self.act, xs, addend, ys },
                        );
                    });
                }
            })
        }
    }

    fn gradients(&self, operands: [&Tensor; N], grad: &Tensor) -> Result<[Option<Tensor>; N]> {
        let Images { batch, channels, .. } = self.images;
        let op = Backward { images: self.images, act: self.act };
        let all = compute(&op, [&grad.contiguous()?, operands[0], operands[1], operands[2]])?;
        let values = batch * self.images.len();
        let vector = |i: usize| {
            all.narrow(0, values + i * batch * channels, batch * channels)?.reshape((batch, channels))
        };
        let mut gradients = [const { None }; N];
        gradients[0] = Some(all.narrow(0, 0, values)?.reshape(self.shape.clone())?);
        gradients[1] = Some(vector(1)?);
        gradients[2] = Some(vector(0)?);
        if let Some(to_addend) = gradients.get_mut(3) {
            *to_addend = Some(grad.clone());
        }
        Ok(gradients)
    }
}

/// The values of some pixels of an image.
struct Forward<'a, T> {
    /// Repeated, as is the shift.
    scale: &'a [T],
    shift: &'a [T],
    act: Activation,
    xs: &'a [T],
    addend: Option<&'a [T]>,
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
            match self.addend {
                Some(addend) => {
                    let addend = &addend[i * wide..][..n];
                    for k in 0..n {
                        ys[k].write(clamp(xs[k] * scale[k] + shift[k], lo, hi) + addend[k]);
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

/// (gradient, `xs`, scale, shift) → one behind the other: the gradient of `xs`, of the shift and of the scale.
struct Backward {
    images: Images,
    act: Activation,
}

impl Operation<4> for Backward {
    const NAME: &'static str = "group-norm's gradient";

    fn shape(&self) -> Shape {
        (self.images.batch * (self.images.len() + 2 * self.images.channels)).into()
    }

    fn run<T: Float>(&self, isa: Isa, [grad, xs, scales, shifts]: [&[T]; 4]) -> Vec<T> {
        let (images, map, c) = (self.images, self.images.map(), self.images.channels);
        let (share, zeros) = (map.share(6), map.repeated(|_| T::ZERO));
        let (mut of_grad, mut along_xs) = (vec![], vec![]);
        let values = images.batch * images.len();
        // SAFETY: the images are the whole result, and the kernel writes every value of its part of one.
        let mut all = unsafe {
            filled(values, |kept| {
                for (image, kept) in kept.unwritten(values).chunks_exact_mut(images.len()).enumerate() {
                    let vector = |all: &[T]| map.repeated(|channel| all[image * c + channel]);
                    let (scale, shift) = (vector(scales), vector(shifts));
                    let parts = gather_chunks(kept, share, |i, kept| {
                        let part = image * images.len() + i * share;
                        let part = part..part + kept.len();
                        dispatch(
                            isa,
                            Gathering {
                                map: &map,
                                act: self.act,
                                grad: &grad[part.clone()],
                                xs: &xs[part],
                                residual: None,
                                scale: &scale,
                                shift: &shift,
                                mean: &zeros,
                                factor: &scale,
                                kept: Some(kept),
                            },
                        )
                    });
                    for (to, which) in [(&mut of_grad, 0), (&mut along_xs, 1)] {
                        let sum = |channel: usize| parts.iter().map(|part| part[which][channel]).sum::<f64>();
                        to.extend((0..c).map(sum));
                    }
                }
            })
        };
        all.extend(of_grad.into_iter().chain(along_xs).map(T::from_f64));
        all
    }
}
