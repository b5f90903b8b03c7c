//! Labels the frames of a clip, every third of them by the key frames' net.
//!
//! `cargo run --release -p gsvnet-seg --example gsvnet-quickstart -- gsv/model.safetensors clip.y4m out/`, with weights and the
//! `config.json` beside them that `zoo convert` writes.
#![allow(clippy::print_stdout, reason = "what it says of the frames is its output")]

use std::path::Path;

use gsvnet_seg::vision::{Source, write};
use gsvnet_seg::{GsvNetSeg, LoadOptions, Pretrained, Schedule, Streaming, weights};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    gsvnet_seg::keep_freed_memory();
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [file, clip, out] = arguments.as_slice() else {
        return Err("usage: gsvnet-quickstart WEIGHTS CLIP FOLDER".into());
    };
    let file = Path::new(file);
    let model = GsvNetSeg::from_file(&weights::config_of(file, None)?, file, &LoadOptions::default())?
        .with_schedule(Schedule::every(3))?;
    std::fs::create_dir_all(out)?;
    let mut stream = None;
    for frame in Source::parse(clip)?.frames()? {
        let frame = frame?;
        let state = match &mut stream {
            Some(state) => state,
            none => none.insert(model.start(frame.image.size())?),
        };
        let segmented = model.step(&frame.image, state)?;
        write::mask(Path::new(out).join(format!("{}.png", frame.name)), &segmented.map)?;
        println!("{}{}", frame.name, if segmented.key().is_some() { "  key" } else { "" });
    }
    Ok(())
}
