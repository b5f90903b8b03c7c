//! How operations on maps enter candle's graph.
//!
//! In candle's backward pass a gradient is a tensor in the order of its dimensions, and wherever one is
//! handed on it is added to zeros, on one thread. A map whose memory runs channel first would be
//! transposed on the way into and out of each view besides. So between two operations of [`apply`]
//! the gradient does not pass through candle at all: in its graph the two are joined by a *token*, a
//! single number, which tells them the order of things, while the gradient waits in a [`Gradient`]
//! that both know. Whoever else uses a result finds an ordinary tensor of the graph.
//!
//! ```text
//!   operand ── Entry ──▶ token ── Node ──▶ token ── Node ──▶ token ── Exit ──▶ result
//! ```
//!
//! Which token belongs to a tensor is looked up by the tensor's id ([`Slot`]); entries vanish with the
//! result.

use std::collections::HashMap;
use std::sync::{Arc, LazyLock, Mutex, MutexGuard, PoisonError, Weak};
use std::thread::ThreadId;

use candle_core::op::BackpropOp;
use candle_core::{CpuStorage, CustomOp1, Layout, Result, Shape, Storage, Tensor, TensorId, bail};

use crate::operation::sum;

/// Work on `N` operands that gives one result, with its gradients.
pub(crate) trait Differentiable<const N: usize>: Send + Sync + 'static {
    /// The result's values and shape.
    fn evaluate(&self, operands: [&Tensor; N]) -> Result<(CpuStorage, Shape)>;

    /// What `grad`, the result's gradient, means for each operand; those that are not `wanted` may be
    /// left out.
    fn gradients(
        &self,
        operands: [&Tensor; N],
        wanted: [bool; N],
        grad: &Tensor,
    ) -> Result<[Option<Tensor>; N]>;
}

/// Runs an operation; its result is part of the graph if one of the operands is.
pub(crate) fn apply<const N: usize>(op: impl Differentiable<N>, operands: [&Tensor; N]) -> Result<Tensor> {
    let result = op.evaluate(operands)?;
    let mut token: Option<Tensor> = None;
    let mut targets = [const { None }; N];
    for (target, operand) in targets.iter_mut().zip(operands) {
        let Some((one, gradient)) = link(operand)? else { continue };
        *target = Some(gradient);
        token = Some(match token {
            Some(others) => (others + one)?,
            None => one,
        });
    }
    let Some(token) = token else {
        let (storage, shape) = result;
        return Ok(Tensor::from_storage(Storage::Cpu(storage), shape, BackpropOp::none(), false));
    };
    let gradient = Arc::<Gradient>::default();
    let operands = operands.map(Tensor::detach);
    let token = token.apply_op1(Node { op, operands, targets, gradient: gradient.clone() })?;
    let slot = Arc::new(Slot { token: token.clone(), gradient, ids: Mutex::default() });
    let ys = token.apply_op1(Exit { slot: slot.clone(), result: Mutex::new(Some(result)) })?;
    slot.name(&ys, Order::ChannelsLast);
    Ok(ys)
}

/// Makes `view` known as the same values as `xs`, a result of [`apply`] or a view of one, in the other
/// order of dimensions.
pub(crate) fn turn(xs: &Tensor, view: &Tensor) {
    if view.track_op()
        && let Some((order, slot)) = find(xs)
    {
        slot.name(view, order.turned());
    }
}

/// The order of a map's dimensions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Order {
    /// As the operation made it: `[B, H, W, C]` where it is a map.
    ChannelsLast,
    /// The view `[B, C, H, W]` of it.
    ChannelsFirst,
}

impl Order {
    fn turned(self) -> Self {
        match self {
            Self::ChannelsLast => Self::ChannelsFirst,
            Self::ChannelsFirst => Self::ChannelsLast,
        }
    }
}

/// A result of [`apply`], as long as the result lives.
struct Slot {
    token: Tensor,
    gradient: Arc<Gradient>,
    /// The tensors that are known as this result.
    ids: Mutex<Vec<TensorId>>,
}

type Slots = HashMap<TensorId, (Order, Weak<Slot>)>;

/// The results that live, by all their tensors' ids.
static SLOTS: LazyLock<Mutex<Slots>> = LazyLock::new(Mutex::default);

/// What a panic of another thread left is whole: nothing here is changed in two steps.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Slot {
    fn name(self: &Arc<Self>, xs: &Tensor, order: Order) {
        lock(&self.ids).push(xs.id());
        lock(&SLOTS).insert(xs.id(), (order, Arc::downgrade(self)));
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        let mut slots = lock(&SLOTS);
        for id in lock(&self.ids).iter() {
            slots.remove(id);
        }
    }
}

fn find(xs: &Tensor) -> Option<(Order, Arc<Slot>)> {
    let (order, slot) = lock(&SLOTS).get(&xs.id())?.clone();
    Some((order, slot.upgrade()?))
}

/// The token of an operand that is part of the graph, and where its gradient is to go.
fn link(xs: &Tensor) -> Result<Option<(Tensor, Arc<Gradient>)>> {
    if !xs.track_op() {
        return Ok(None);
    }
    if let Some((Order::ChannelsLast, slot)) = find(xs) {
        return Ok(Some((slot.token.clone(), slot.gradient.clone())));
    }
    let gradient = Arc::<Gradient>::default();
    Ok(Some((xs.apply_op1(Entry(gradient.clone()))?, gradient)))
}

/// The sum of what a result's users gave back so far, for each thread that is going backward. A pass
/// that ends in an error leaves it as it was then: the graph is of no use after that.
#[derive(Default)]
struct Gradient(Mutex<Vec<(ThreadId, Tensor)>>);

impl Gradient {
    fn add(&self, grad: Tensor) -> Result<()> {
        let grad = match self.take() {
            Some(others) => sum(&others, &grad)?,
            None => grad,
        };
        lock(&self.0).push((std::thread::current().id(), grad));
        Ok(())
    }

    fn take(&self) -> Option<Tensor> {
        let mut grads = lock(&self.0);
        let at = grads.iter().position(|(thread, _)| *thread == std::thread::current().id())?;
        Some(grads.swap_remove(at).1)
    }
}

/// The value of every token.
fn token() -> (CpuStorage, Shape) {
    (CpuStorage::F32(vec![0.0]), 1.into())
}

/// From a tensor of candle's to its token.
struct Entry(Arc<Gradient>);

impl CustomOp1 for Entry {
    fn name(&self) -> &'static str {
        "entry"
    }

    fn cpu_fwd(&self, _: &CpuStorage, _: &Layout) -> Result<(CpuStorage, Shape)> {
        Ok(token())
    }

    fn bwd(&self, arg: &Tensor, _res: &Tensor, _grad: &Tensor) -> Result<Option<Tensor>> {
        match self.0.take() {
            Some(grad) => Ok(Some(grad)),
            None => arg.zeros_like().map(Some),
        }
    }
}

/// From the operands' tokens to the result's.
struct Node<const N: usize, O> {
    op: O,
    operands: [Tensor; N],
    /// Where the gradients of those operands go that are part of the graph.
    targets: [Option<Arc<Gradient>>; N],
    gradient: Arc<Gradient>,
}

impl<const N: usize, O: Differentiable<N>> CustomOp1 for Node<N, O> {
    fn name(&self) -> &'static str {
        "node"
    }

    fn cpu_fwd(&self, _: &CpuStorage, _: &Layout) -> Result<(CpuStorage, Shape)> {
        Ok(token())
    }

    fn bwd(&self, arg: &Tensor, _res: &Tensor, _grad: &Tensor) -> Result<Option<Tensor>> {
        if let Some(grad) = self.gradient.take() {
            let wanted = self.targets.each_ref().map(Option::is_some);
            let grads = self.op.gradients(self.operands.each_ref(), wanted, &grad)?;
            for (target, grad) in self.targets.iter().zip(grads) {
                if let (Some(target), Some(grad)) = (target, grad) {
                    target.add(grad)?;
                }
            }
        }
        arg.zeros_like().map(Some)
    }
}

/// From a result's token to the result.
struct Exit {
    slot: Arc<Slot>,
    result: Mutex<Option<(CpuStorage, Shape)>>,
}

impl CustomOp1 for Exit {
    fn name(&self) -> &'static str {
        "exit"
    }

    fn cpu_fwd(&self, _: &CpuStorage, _: &Layout) -> Result<(CpuStorage, Shape)> {
        match lock(&self.result).take() {
            Some(result) => Ok(result),
            None => bail!("a result can be taken once"),
        }
    }

    fn bwd(&self, arg: &Tensor, _res: &Tensor, grad: &Tensor) -> Result<Option<Tensor>> {
        self.slot.gradient.add(grad.contiguous()?)?;
        arg.zeros_like().map(Some)
    }
}

#[cfg(test)]
mod tests {
    use candle_core::{DType, Device, Var};

    use super::*;
    use crate::{Pool, max_pool2d};

    #[test]
    fn results_are_known_as_long_as_they_live() -> Result<()> {
        let xs = Var::zeros((1, 2, 4, 4), DType::F32, &Device::Cpu)?;
        let ys = max_pool2d(&xs, Pool::square(2, 2, 0))?;
        let id = ys.id();
        assert!(find(&ys).is_some());
        let zs = max_pool2d(&ys, Pool::square(2, 2, 0))?;
        drop(ys);
        assert!(!lock(&SLOTS).contains_key(&id));
        assert_eq!(zs.sum_all()?.backward()?.get(&xs).map(Tensor::dims), Some([1, 2, 4, 4].as_slice()));
        Ok(())
    }
}
