//! Files: their content, their names, and that half of one is never seen.

use std::fs;
use std::path::Path;
use std::slice::from_ref;

use zoo_core::{BBox, Detection, Detections, FrameSize, Image, SegClass, SegMap};
use zoo_vision::write::{self, Animation, CocoResults, Csv, JsonLines, OutputFolder, Record, StillFormat};
use zoo_vision::{Frame, Source, read};

use crate::pictures::pattern;

fn listing(folder: &Path) -> Vec<String> {
    let mut names: Vec<_> = fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}

fn frame(name: &str, path: Option<&Path>) -> Frame {
    Frame {
        index: 7,
        name: name.to_owned(),
        path: path.map(Path::to_owned),
        image: pattern(3, 4),
        timestamp: Some(std::time::Duration::from_millis(280)),
    }
}

fn found() -> Detections {
    Detections::new(
        FrameSize::new(3, 4),
        vec![
            Detection::new(17, "cat", 0.75, BBox::new(1.0, 0.5, 3.5, 2.0)),
            Detection::new(1, "person, \"sitting\"", 0.5, BBox::new(0.0, 0.0, 4.0, 3.0)),
        ],
    )
}

#[test]
fn pictures_come_back_as_they_were_written() {
    let folder = tempfile::tempdir().unwrap();
    let image = pattern(5, 7);
    let path = folder.path().join("a.PNG");
    write::image(&path, &image).unwrap();
    assert_eq!(read(&path).unwrap(), image);
    let path = folder.path().join("a.jpg");
    write::image(&path, &Image::filled(image.size(), [90, 120, 60]).unwrap()).unwrap();
    assert!(read(&path).unwrap().get(2, 2).unwrap()[1].abs_diff(120) <= 3);
    assert!(fs::read(&path).unwrap().starts_with(&[0xff, 0xd8]));
    assert_eq!(listing(folder.path()), ["a.PNG", "a.jpg"]);
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        fs::write(folder.path().join("plain"), b"").unwrap();
        let mode = |name: &str| fs::metadata(folder.path().join(name)).unwrap().permissions().mode();
        assert_eq!(mode("a.jpg"), mode("plain"), "as any file that is written");
    }
}

#[test]
fn names_and_folders_that_do_not_serve_are_named() {
    let folder = tempfile::tempdir().unwrap();
    let image = pattern(2, 2);
    let error = write::image(folder.path().join("a.bmp"), &image).unwrap_err().to_string();
    assert!(error.ends_with("a.bmp says no format to write: expected it to end in .png, .jpg or .jpeg"));
    let error = Animation::create(folder.path().join("a.mp4"), 10.0).err().unwrap().to_string();
    assert!(error.ends_with("expected it to end in .gif, .png or .apng"), "{error}");
    let error = write::image(folder.path().join("none/a.png"), &image).unwrap_err().to_string();
    assert!(error.starts_with("cannot write ") && error.contains("none/a.png: No such file"), "{error}");
    assert!(error.ends_with("check that its folder exists, is writable and has room"), "{error}");
    assert!(!error.contains(".part"), "the temporary name is nobody's business: {error}");
    // A folder in the way of the name: nothing is left behind.
    fs::create_dir(folder.path().join("taken.png")).unwrap();
    let error = write::image(folder.path().join("taken.png"), &image).unwrap_err().to_string();
    assert!(error.contains("taken.png"), "{error}");
    assert_eq!(listing(folder.path()), ["taken.png"]);
}

#[test]
fn nothing_is_seen_of_a_file_before_it_is_finished() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("boxes.jsonl");
    fs::write(&path, b"older").unwrap();
    let mut lines = JsonLines::create(&path).unwrap();
    lines.push(&"new").unwrap();
    drop(lines);
    let mut animation = Animation::create(folder.path().join("clip.gif"), 10.0).unwrap();
    animation.push(&pattern(4, 4)).unwrap();
    drop(animation);
    let empty = Animation::create(folder.path().join("empty.png"), 10.0).unwrap();
    let error = empty.finish().unwrap_err().to_string();
    assert!(error.ends_with("empty.png: an animation needs at least one frame, got none"), "{error}");
    assert_eq!(listing(folder.path()), ["boxes.jsonl"]);
    assert_eq!(fs::read(&path).unwrap(), b"older");
}

#[test]
fn results_never_replace_an_input_or_each_other() {
    let folder = tempfile::tempdir().unwrap();
    let image = pattern(3, 4);
    for name in ["street.jpg", "street.png", "park.jpg"] {
        write::image(folder.path().join(name), &image).unwrap();
    }
    let before = fs::read(folder.path().join("street.png")).unwrap();
    let source = Source::parse(folder.path().to_str().unwrap()).unwrap();
    let mut out = OutputFolder::create(folder.path(), from_ref(&source)).unwrap();
    let written: Vec<_> = source
        .frames()
        .unwrap()
        .map(|frame| out.image(&frame.unwrap(), &pattern(9, 9), StillFormat::Png).unwrap())
        .map(|path| path.file_name().unwrap().to_str().unwrap().to_owned())
        .collect();
    assert_eq!(written, ["park.png", "street-2.png", "street-3.png"]);
    assert_eq!(fs::read(folder.path().join("street.png")).unwrap(), before);

    // Elsewhere an earlier run's results are replaced, and the folder is made.
    let elsewhere = folder.path().join("out/boxes");
    for _ in 0..2 {
        let mut out = OutputFolder::create(&elsewhere, from_ref(&source)).unwrap();
        out.image(&frame("a/../b:c", None), &image, StillFormat::Jpeg).unwrap();
        out.image(&frame("A_.._B_C", None), &image, StillFormat::Jpeg).unwrap();
        out.mask(&frame("street", None), &map()).unwrap();
    }
    assert_eq!(listing(&elsewhere), ["A_.._B_C-2.jpg", "a_.._b_c.jpg", "street.png"]);
    let blocked = OutputFolder::create(folder.path().join("park.jpg"), &[]).unwrap_err().to_string();
    assert!(blocked.starts_with("cannot write ") && blocked.contains("park.jpg"), "{blocked}");
}

fn map() -> SegMap {
    let legend = vec![SegClass::new("background", 7, [0, 0, 0]), SegClass::new("cat", 33, [64, 0, 200])];
    SegMap::new(FrameSize::new(2, 3), vec![0, 1, 1, 0, 255, 5], legend).unwrap()
}

/// The palette's indices that an indexed PNG holds.
fn indices(path: &Path) -> Vec<u8> {
    let mut reader =
        png::Decoder::new(std::io::BufReader::new(fs::File::open(path).unwrap())).read_info().unwrap();
    let mut labels = vec![0; reader.output_buffer_size().unwrap()];
    reader.next_frame(&mut labels).unwrap();
    assert_eq!(reader.info().color_type, png::ColorType::Indexed);
    labels
}

#[test]
fn masks_hold_labels_and_show_colours() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("mask.png");
    write::mask(&path, &map()).unwrap();
    assert_eq!(indices(&path), map().classes);
    let shown = read(&path).unwrap();
    assert_eq!((shown.get(0, 0), shown.get(0, 1)), (Some([0; 3]), Some([64, 0, 200])));
    assert_eq!(shown.get(1, 1), Some([224, 224, 192]), "does not count");
    assert_eq!(shown.get(1, 2), Some(zoo_vision::draw::class_color(5)), "not in the legend");
}

#[test]
fn masks_of_ids_hold_the_data_sets_numbers() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("ids.png");
    write::mask_of_ids(&path, &map()).unwrap();
    assert_eq!(indices(&path), [7, 33, 33, 7, 255, 255]);
    let shown = read(&path).unwrap();
    assert_eq!((shown.get(0, 0), shown.get(0, 1)), (Some([0; 3]), Some([64, 0, 200])));
}

/// A dot that wanders over a resting picture.
fn clip() -> Vec<Image> {
    let still = pattern(20, 30);
    let dot = |i: usize| {
        let mut image = still.clone();
        image.put(i + 3, 2 * i + 4, [250, 10, 240]);
        image
    };
    (0..4).map(dot).chain([still.clone(), still.clone()]).collect()
}

#[test]
fn animations_come_back_frame_by_frame() {
    for ending in ["png", "apng", "gif"] {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(format!("clip.{ending}"));
        let mut animation = Animation::create(&path, 8.0).unwrap();
        for image in clip() {
            animation.push(&image).unwrap();
        }
        let error = animation.push(&pattern(20, 31)).unwrap_err().to_string();
        assert_eq!(
            error,
            "this animation is for images of 20×30, got one of 20×31 (rows × columns); resize all frames to the first one's size"
        );
        animation.finish().unwrap();

        let frames = Source::parse(path.to_str().unwrap()).unwrap().frames().unwrap();
        assert_eq!(frames.count_hint(), Some(6), "{ending}");
        let frames: Vec<_> = frames.map(Result::unwrap).collect();
        // Few colours: GIF keeps them as well.
        for (i, (frame, expected)) in frames.iter().zip(clip()).enumerate() {
            assert_eq!(frame.image, expected, "{ending}, frame {i}");
        }
        // Hundredths of a second in a GIF: 12.5 becomes 13, 12, 13, …
        let last = frames[5].timestamp.unwrap().as_millis();
        assert!((620..=630).contains(&last), "{ending}: {last} ms");
        let size = fs::metadata(&path).unwrap().len();
        assert!(size < 2_500, "{ending}: only what changes is stored, {size} bytes");
    }
}

#[test]
fn a_gif_of_many_colours_stays_close() {
    let size = FrameSize::new(64, 96);
    let smooth = |shift: usize| {
        let pixel = |i: usize| {
            let (y, x) = (i / 96, i % 96 + shift);
            [(y * 4) as u8, (x * 2) as u8, (255 - y * 2 - x).min(255) as u8]
        };
        Image::new(size, (0..64 * 96).flat_map(pixel).collect()).unwrap()
    };
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("smooth.gif");
    let mut animation = Animation::create(&path, 20.0).unwrap();
    for shift in 0..3 {
        animation.push(&smooth(shift)).unwrap();
    }
    animation.finish().unwrap();
    for (shift, frame) in Source::parse(path.to_str().unwrap()).unwrap().frames().unwrap().enumerate() {
        let (got, expected) = (frame.unwrap().image, smooth(shift));
        let pairs = got.pixels().iter().zip(expected.pixels());
        let sum: u64 = pairs.map(|(a, b)| u64::from(a.abs_diff(*b))).sum();
        let mean = sum as f64 / got.pixels().len() as f64;
        assert!(mean < 8.0, "frame {shift}: off by {mean:.1} on average");
    }
}

#[test]
fn records_say_what_was_found() {
    let folder = tempfile::tempdir().unwrap();
    let (frame, found) = (frame("street", Some(Path::new("in/street.jpg"))), found());

    let path = folder.path().join("boxes.jsonl");
    let mut lines = JsonLines::create(&path).unwrap();
    lines.push(&Record::new(&frame, &found)).unwrap();
    lines.push(&serde_json::json!({"done": true})).unwrap();
    lines.finish().unwrap();
    let text = fs::read_to_string(&path).unwrap();
    let (first, second) = text.split_once('\n').unwrap();
    assert!(
        first.starts_with(
            r#"{"frame":7,"name":"street","path":"in/street.jpg","seconds":0.28,"width":4,"height":3,"detections":[{"class_id":17,"label":"cat","score":0.75,"bbox":{"x0":1.0,"#
        ),
        "{first}"
    );
    assert_eq!(second, "{\"done\":true}\n");

    let path = folder.path().join("results.json");
    let mut results = CocoResults::create(&path).unwrap();
    results.push(42, &found).unwrap();
    results.push(43, &Detections::new(found.size, vec![])).unwrap();
    results.finish().unwrap();
    let values: serde_json::Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
    assert_eq!(
        values,
        serde_json::json!([
            {"image_id": 42, "category_id": 17, "bbox": [1.0, 0.5, 2.5, 1.5], "score": 0.75},
            {"image_id": 42, "category_id": 1, "bbox": [0.0, 0.0, 4.0, 3.0], "score": 0.5},
        ])
    );
    let path = folder.path().join("none.json");
    CocoResults::create(&path).unwrap().finish().unwrap();
    assert_eq!(
        serde_json::from_slice::<serde_json::Value>(&fs::read(&path).unwrap()).unwrap(),
        serde_json::json!([])
    );

    let path = folder.path().join("boxes.csv");
    let mut table = Csv::create(&path).unwrap();
    table.push(&frame, &found).unwrap();
    table.finish().unwrap();
    assert_eq!(
        fs::read_to_string(&path).unwrap(),
        "frame,name,class_id,label,score,x0,y0,x1,y1\r\n\
         7,street,17,cat,0.75,1,0.5,3.5,2\r\n\
         7,street,1,\"person, \"\"sitting\"\"\",0.5,0,0,4,3\r\n"
    );
}

#[test]
fn a_record_without_json_form_is_an_error() {
    let folder = tempfile::tempdir().unwrap();
    let mut lines = JsonLines::create(folder.path().join("a.jsonl")).unwrap();
    let pairs = std::collections::BTreeMap::from([((1, 2), 3)]);
    let error = lines.push(&pairs).unwrap_err().to_string();
    assert!(error.contains("a.jsonl: key must be a string"), "{error}");
}
