//! Finds objects in a clip, looking at a quarter of each frame.
//!
//! `cargo run --release -p patchwork-det --features bundled --example quickstart -- clip.y4m`
#![allow(clippy::print_stdout, reason = "the boxes are its output")]

use patchwork_det::vision::Source;
use patchwork_det::{
    DetectorWeights, FrameSize, LoadOptions, Mode, PatchworkDet, PolicyKind, Pretrained, Streaming,
};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let clip = std::env::args().nth(1).ok_or("usage: quickstart CLIP")?;
    let model = PatchworkDet::from_pretrained(DetectorWeights::default(), &LoadOptions::default())?
        .with_frame(FrameSize::new(384, 512))?
        .with_mode(Mode::windows(4, 2, PolicyKind::Motion)?);
    let mut stream = None;
    for frame in Source::parse(&clip)?.frames()? {
        let image = frame?.image;
        let state = match &mut stream {
            Some(state) => state,
            none => none.insert(model.start(image.size())?),
        };
        let step = model.step(&image, state)?;
        for d in step.output.above(0.5) {
            println!("{:4} {:<12} {:.2} {}", step.index, d.label, d.score, d.bbox);
        }
    }
    Ok(())
}
