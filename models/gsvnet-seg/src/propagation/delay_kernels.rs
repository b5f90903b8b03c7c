//! Delay kernels: Section 3.2. Each moves a map by a pixel or two.

use candle_core::{Result, Tensor, bail};
use candle_nn::VarBuilder;
use serde::{Deserialize, Serialize};
use zoo_core::{FrameSize, LayerCost, Tally};
use zoo_kernels::{Candidate, ConvOptions, Pads, Region, conv2d};

use super::STAY;

/// Where the bank is stored.
const STORED: &str = "filter_copy_s";

/// Which bank.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[non_exhaustive]
pub enum KernelSize {
    /// Eight neighbours; nine kernels, of which the last is empty.
    #[default]
    #[serde(rename = "3x3")]
    Three,
    /// Eight neighbours and eight at distance two; seventeen kernels, of which the last is empty.
    #[serde(rename = "5x5")]
    Five,
}

impl KernelSize {
    /// Rows and columns of a kernel.
    pub fn side(self) -> usize {
        match self {
            Self::Three => 3,
            Self::Five => 5,
        }
    }

    /// The places of the ones, in pixels from the centre (down, right), in the order of the bank's kernels. The bank
    /// has one kernel more, which is empty: the paper counts the centre, which the code supplies as a candidate of
    /// its own, and leaves its slot unfilled.
    pub fn delays(self) -> Vec<(isize, isize)> {
        let ring = |step: isize| {
            let steps = [-step, 0, step];
            steps.into_iter().flat_map(move |down| steps.map(|right| (down, right)))
        };
        let rings = if self == Self::Three { 1 } else { 2 };
        (1..=rings).flat_map(ring).filter(|&delay| delay != (0, 0)).collect()
    }

    /// Kernels of the bank.
    pub fn count(self) -> usize {
        self.delays().len() + 1
    }

    /// The ideal bank, row by row: `[count, 1, 1, side, side]`.
    pub fn ideal(self) -> Vec<f32> {
        let (side, middle) = (self.side(), (self.side() / 2) as isize);
        let mut bank = vec![0.0; self.count() * side * side];
        for (kernel, (down, right)) in bank.chunks_exact_mut(side * side).zip(self.delays()) {
            kernel[(middle + down) as usize * side + (middle + right) as usize] = 1.0;
        }
        bank
    }
}

/// A bank of kernels, applied to each class by itself, with zeros outside the map.
#[derive(Debug, Clone)]
pub struct DelayKernels {
    size: KernelSize,
    bank: Bank,
}

#[derive(Debug, Clone)]
enum Bank {
    Ideal,
    /// `[side² + 1, kernels + 2, 1, 1]`: what each candidate's weight is to each tap, and f's to itself.
    Columns(Tensor),
    /// As stored: a variable, which may be another one at each pass.
    Variable(Tensor),
}

impl DelayKernels {
    /// The ideal ones.
    pub fn ideal(size: KernelSize) -> Self {
        Self { size, bank: Bank::Ideal }
    }

    /// Those that are stored under `filter_copy_s`, `[kernels, 1, 1, side, side]`, for the kernels of a file may have
    /// been trained; the ideal ones if it has none.
    ///
    /// # Errors
    /// If they have another shape.
    pub fn stored(size: KernelSize, vb: VarBuilder) -> Result<Self> {
        let (count, side) = (size.count(), size.side());
        match vb.contains_tensor(STORED) {
            true => Self::learned(size, &vb.get((count, 1, 1, side, side), STORED)?),
            false => Ok(Self::ideal(size)),
        }
    }

    /// Given kernels, `[kernels, 1, 1, side, side]`. Gradients reach them.
    ///
    /// # Errors
    /// If they have another shape.
    pub fn learned(size: KernelSize, bank: &Tensor) -> Result<Self> {
        let (count, side) = (size.count(), size.side());
        if bank.dims() != [count, 1, 1, side, side] {
            bail!(
                "delay kernels: expected {side}×{side} kernels [{count}, 1, 1, {side}, {side}], got {:?}",
                bank.dims()
            )
        }
        if bank.track_op() {
            return Ok(Self { size, bank: Bank::Variable(bank.clone()) });
        }
        if bank.flatten_all()?.to_dtype(candle_core::DType::F32)?.to_vec1::<f32>()? == size.ideal() {
            return Ok(Self::ideal(size));
        }
        Ok(Self { size, bank: Bank::Columns(columns(size, bank)?) })
    }

    /// Which bank.
    pub fn size(&self) -> KernelSize {
        self.size
    }

    /// Kernels of the bank.
    pub fn count(&self) -> usize {
        self.size.count()
    }

    /// Whether each kernel is a single one, in its place.
    pub fn are_ideal(&self) -> bool {
        matches!(self.bank, Bank::Ideal)
    }

    /// The candidates' weights, `[B, kernels + 2, h, w]`, as those of one filter a pixel, and what each of its
    /// weights is multiplied by.
    pub(super) fn merge(&self, weights: &Tensor) -> Result<(Tensor, Vec<Candidate>)> {
        let shift = |(down, right)| Candidate::Shift { down, right };
        let columns = match &self.bank {
            Bank::Ideal => {
                let delays = self.size.delays().into_iter().map(shift);
                let candidates = [STAY].into_iter().chain(delays);
                let candidates = candidates.chain([Candidate::Nothing, Candidate::Other]);
                return Ok((weights.clone(), candidates.collect()));
            }
            Bank::Columns(columns) => columns.clone(),
            Bank::Variable(bank) => columns(self.size, bank)?,
        };
        let weights = conv2d(&Region::whole(weights)?, &columns, Pads::default(), ConvOptions::default())?;
        let reach = (self.size.side() / 2) as isize;
        let places = (-reach..=reach).flat_map(|down| (-reach..=reach).map(move |right| (down, right)));
        Ok((weights, places.map(shift).chain([Candidate::Other]).collect()))
    }

    /// Counts the bank as the paper does: as convolutions of every class, and a product for each candidate.
    pub(super) fn cost(&self, low: FrameSize, classes: usize, tally: &mut Tally) {
        let taps = self.count() * self.size.side() * self.size.side();
        let values = classes * low.area();
        tally.push(LayerCost {
            name: format!("ideal_dk.{STORED}"),
            params: taps as u64,
            macs: (taps * values) as u64,
            ..LayerCost::default()
        });
        let macs = ((self.count() + 2) * values) as u64;
        tally.push(LayerCost { name: "filtering".to_owned(), macs, ..LayerCost::default() });
    }
}

/// A column a candidate: S⁻ stays, each kernel is its taps, f goes to a row of its own.
fn columns(size: KernelSize, bank: &Tensor) -> Result<Tensor> {
    let (count, taps) = (size.count(), size.side() * size.side());
    let one_hot = |at: usize| {
        let mut column = vec![0f32; taps + 1];
        column[at] = 1.0;
        Tensor::from_vec(column, (taps + 1, 1), bank.device())?.to_dtype(bank.dtype())
    };
    let kernels = bank.reshape((count, taps))?.t()?.pad_with_zeros(0, 0, 1)?;
    Tensor::cat(&[&one_hot(taps / 2)?, &kernels, &one_hot(taps)?], 1)?.reshape((taps + 1, count + 2, 1, 1))
}
