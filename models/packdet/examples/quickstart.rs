//! Finds objects in pictures and draws them.
//!
//! `cargo run --release -p packdet --example packdet-quickstart -- packdet/model.safetensors out/ street.jpg …`, with weights and the
//! `config.json` beside them that `zoo convert` writes.
#![allow(clippy::print_stdout, reason = "what it finds is its output")]

use std::path::Path;

use packdet::vision::{self, draw, write};
use packdet::{Detector, LoadOptions, PackDet, Pretrained, weights};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    packdet::keep_freed_memory();
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [file, out, pictures @ ..] = arguments.as_slice() else {
        return Err("usage: packdet-quickstart WEIGHTS FOLDER PICTURE…".into());
    };
    let file = Path::new(file);
    let model = PackDet::from_file(&weights::config_of(file, None)?, file, &LoadOptions::default())?;
    std::fs::create_dir_all(out)?;
    for (i, picture) in pictures.iter().enumerate() {
        let mut image = vision::read(picture)?;
        let found = model.detect(std::slice::from_ref(&image))?.remove(0);
        println!("{picture}");
        for object in found.above(0.5) {
            println!("  {:<14} {:.2}  {}", object.label, object.score, object.bbox);
        }
        draw::detections(&mut image, &found, &draw::Style::default().with_min_score(0.5));
        write::image(Path::new(out).join(format!("{i}.png")), &image)?;
    }
    Ok(())
}
