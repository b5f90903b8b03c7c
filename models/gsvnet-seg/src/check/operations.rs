use zoo_core::Tally;

/// Operations of a batch norm for each value.
const NORM: u64 = 2;

/// Operations as Table 2 and Figure A9 count them, though they call them FLOPs: a multiply–accumulate is one, a batch
/// norm has two for each value that it goes over, a ReLU one.
pub fn operations(tally: &Tally) -> u64 {
    tally.layers().iter().map(|layer| layer.macs + NORM * layer.normed + layer.activated).sum()
}
