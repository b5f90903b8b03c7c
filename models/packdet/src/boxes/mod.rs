//! From raw maps to boxes: which scores count, where their boxes are, and which of them stay.
//!
//! Nothing is unpacked: the cells of a plane are decoded where they lie (Section 3.2 of the paper). All of it works on
//! slices of the maps' own memory, in whichever order the net left it.

mod candidates;
mod form;
mod rule;
mod values;

pub use candidates::{Candidate, Candidates};
pub use form::{BoxForm, anchors_of};
pub use rule::{Convention, Group, PostProcess, Threshold};
