//! Learning from another net's scores.

use candle_core::{D, Result, Tensor, bail};
use zoo_kernels::channels_last;

/// KL(softmax(teacher) ‖ softmax(student)) over the classes, divided by the number of all values, `B · C · H · W`, as
/// PyTorch's `KLDivLoss` does by default and GSVNet's training has it (times C it is the mean over pixels).
///
/// Both are scores `[B, C, H, W]`. Has a gradient for the student alone.
///
/// # Errors
/// If the shapes differ.
pub fn distillation(student: &Tensor, teacher: &Tensor) -> Result<Tensor> {
    if student.dims() != teacher.dims() || student.rank() != 4 || student.elem_count() == 0 {
        bail!(
            "distillation: expected scores of one shape [B, C, H, W], got {:?} of the student and {:?} of the teacher",
            student.dims(),
            teacher.dims()
        )
    }
    let log_softmax = |scores: &Tensor| {
        let last = channels_last(scores)?;
        // The shift cancels, so that it needs no gradient.
        let shifted = last.broadcast_sub(&last.detach().max_keepdim(D::Minus1)?)?;
        shifted.broadcast_sub(&shifted.exp()?.sum_keepdim(D::Minus1)?.log()?)
    };
    let (student, teacher) = (log_softmax(student)?, log_softmax(&teacher.detach())?);
    let values = student.elem_count() as f64;
    (teacher.exp()? * (teacher - student)?)?.sum(D::Minus1)?.sum_all()? / values
}
