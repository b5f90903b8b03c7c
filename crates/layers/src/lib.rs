//! Building blocks and backbones that the zoo's models are written in.
