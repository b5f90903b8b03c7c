//! Tensor operations that candle lacks or does slowly.
