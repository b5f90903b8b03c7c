//! The nets for key frames. Any [`ScoreNet`](zoo_core::ScoreNet) can be one.
