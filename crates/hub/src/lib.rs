//! Finding, fetching, checking and opening weights.
