//! `zoo demo`.

use zoo_vision::Source;

use crate::support::{photo, zoo};

/// Mode and AP50 of each row of the table.
fn agreements(text: &str) -> Vec<(String, String)> {
    let rows =
        text.lines().filter(|line| ["single frame ", "interval=", "M="].iter().any(|m| line.starts_with(m)));
    rows.map(|row| {
        let cells: Vec<&str> = row.split("  ").map(str::trim).filter(|cell| !cell.is_empty()).collect();
        (cells[0].to_owned(), cells[cells.len() - 2].to_owned())
    })
    .collect()
}

#[test]
fn the_demo_finds_the_right_objects_and_writes_pictures_and_a_table() {
    let folder = tempfile::tempdir().unwrap();
    let ran = zoo(folder.path(), "demo -o shown --frames 4").expect_code(0);
    for (name, label) in
        [("astronaut", "person"), ("chelsea", "cat"), ("coffee", "cup"), ("coffee", "dining table")]
    {
        let found = ran.stdout.lines().any(|line| line.contains(name) && line.contains(label));
        assert!(found, "{name} shows a {label}: {}", ran.stdout);
    }
    for mode in ["single frame", "interval=4", "M=4 N=2 raster", "M=4 N=2 motion", "M=4 N=1 motion"] {
        assert!(ran.stdout.lines().any(|line| line.starts_with(mode)), "{mode}: {}", ran.stdout);
    }
    for part in ["composed", "not accuracy", "no attention network has been trained"] {
        assert!(ran.stdout.contains(part), "{part}: {}", ran.stdout);
    }

    let at = folder.path().join("shown");
    for (name, size) in [("astronaut.png", (512, 512)), ("coffee.png", (400, 600))] {
        let image = zoo_vision::read(at.join(name)).unwrap();
        assert_eq!((image.height(), image.width()), size, "{name}");
        assert_ne!(image, zoo_vision::read(photo(name)).unwrap(), "{name} has boxes drawn on it");
    }
    assert!(zoo_vision::read(at.join("overview.png")).unwrap().width() > 1200);
    for folder in ["frames", "annotated"] {
        assert_eq!(
            Source::parse(at.join(folder).to_str().unwrap()).unwrap().files().unwrap().len(),
            4,
            "{folder}"
        );
    }
    let eval = zoo(folder.path(), "eval patchwork-det shown/frames").expect_code(0);
    assert!(eval.stdout.contains("384×512 (rows × columns)"), "{}", eval.stdout);
    assert_eq!(agreements(&eval.stdout), agreements(&ran.stdout), "the demo's own frames, without boxes");
    assert_eq!(agreements(&ran.stdout).len(), 5, "{}", ran.stdout);
    let animation = Source::parse(at.join("clip.gif").to_str().unwrap()).unwrap().frames().unwrap();
    assert_eq!(animation.map(Result::unwrap).count(), 4);
    assert!(!ran.stderr.contains('\r'), "no progress bar where there is no terminal: {}", ran.stderr);
}
