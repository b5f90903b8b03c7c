//! The authors' checkpoints: the key frames' net is one file, the rest another (or two, with a flow net of its own).

use anyhow::Result;
use zoo_hub::convert::{StateDict, TorchFile};

use super::NAME;
use crate::exit::Usage;

/// The parts of the net, and names that only they have.
const PARTS: [(&str, &[&str]); 3] = [
    ("segnet.", &["backbone.", "context_path."]),
    ("ofnet.", &["conv_dilate_1.", "predict_flow6."]),
    ("grm.", &["grm."]),
];

/// All dictionaries of all files, each under the name of its part. A file that is whole already stays as it is.
pub fn joined(file: &TorchFile, others: &[TorchFile], key: Option<&str>) -> Result<StateDict> {
    let dictionaries = |file: &TorchFile| -> Result<Vec<StateDict>> {
        let keys: Vec<String> = match key {
            Some(key) => vec![key.to_owned()],
            None => file.candidates().into_iter().map(|candidate| candidate.key).collect(),
        };
        keys.iter().map(|key| Ok(file.state_dict(Some(key))?)).collect()
    };
    let mut whole: Option<StateDict> = None;
    for file in std::iter::once(file).chain(others) {
        for state in dictionaries(file)? {
            // An optimiser's state, for one.
            let Some(part) = part_of(&state) else { continue };
            let state = state.prefixed(part);
            match &mut whole {
                None => whole = Some(state),
                Some(whole) => whole.join(state).map_err(|name| {
                    Usage::error(format_args!(
                        "{name} is in two of the files: give each part of the net once"
                    ))
                })?,
            }
        }
    }
    whole.ok_or_else(|| {
        Usage::error(format_args!(
            "{} is no part of {NAME}: expected tensors of a key frames' net ({}…), of a flow net ({}…) or of the rest ({}…)",
            file.file_name(),
            PARTS[0].1.join("…, "),
            PARTS[1].1.join("…, "),
            PARTS[2].1.join("…, ")
        ))
    })
}

/// What a dictionary's names are to begin with; nothing if they begin so already.
fn part_of(state: &StateDict) -> Option<&'static str> {
    let has = |start: &str| state.tensors().keys().any(|name| name.starts_with(start));
    if PARTS.iter().any(|(prefix, _)| has(prefix)) {
        return Some("");
    }
    let found = PARTS.iter().find(|(_, names)| names.iter().any(|name| has(name)));
    found.map(|(prefix, _)| *prefix)
}

/// What the nets do not ask for: training's counters and heads, and constants that SwiftNet's code stores and does not
/// use.
pub fn leave_out_unused(state: &mut StateDict) {
    state.leave_out("a counter of training", |name| name.ends_with("num_batches_tracked"));
    state.leave_out("a constant that the net does not use", |name| {
        ["img_mean", "img_std"].iter().any(|constant| name == format!("segnet.backbone.{constant}"))
    });
    state.leave_out("a head that only training needs", |name| {
        name.starts_with("segnet.heads.0.") || name.starts_with("segnet.heads.1.")
    });
}
