//! Test helpers: loopback hub, malformed files, tensor comparison.
