//! Training: what the loss is, what learns, and that it does.

mod augmentation;
mod loss;
mod propagation;
mod recipe;
mod support;
