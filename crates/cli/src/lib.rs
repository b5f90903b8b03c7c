//! The zoo command and one short demo binary a paper.
