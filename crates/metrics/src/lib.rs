//! Accuracy and speed measures.
