//! Cross-crate and command-line tests of the workspace.
