//! `zoo eval MODEL` of models that find boxes, on annotated pictures.

use std::collections::BTreeMap;
use std::io::{Write, stdout};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use serde::Serialize;
use zoo_core::{Detections, Image};
use zoo_metrics::coco::{AnnotatedSet, CocoAp, Truth, evaluate};

use crate::commands::eval::EvalArgs;
use crate::exit::{Usage, note};
use crate::progress::Progress;
use crate::table::{Table, number};

/// The part of COCO, and of PASCAL VOC, that is measured on if no other is named.
const COCO_SPLIT: &str = "val2017";
const VOC_SPLIT: &str = "val";

/// Annotated pictures as the command line names them.
pub struct Data {
    set: AnnotatedSet,
    images: PathBuf,
}

impl Data {
    /// `--coco FILE --images DIR`, or `--data DIR`: a folder laid out as COCO (`annotations/instances_SPLIT.json`, `SPLIT/`) or
    /// PASCAL VOC (`Annotations/`, `JPEGImages/`, `ImageSets/Main/SPLIT.txt`).
    pub fn open(args: &EvalArgs) -> Result<Self> {
        match (&args.coco, &args.images, &args.data) {
            (Some(file), Some(images), None) => Self::coco(file, images),
            (None, _, Some(folder)) if folder.join("Annotations").is_dir() => Self::voc(folder, args),
            (None, _, Some(folder)) => {
                let split = args.split.as_deref().unwrap_or(COCO_SPLIT);
                let file = folder.join("annotations").join(format!("instances_{split}.json"));
                if !file.is_file() {
                    return Err(Usage::error(format_args!(
                        "{} has neither Annotations (PASCAL VOC) nor {} (COCO): --split names another part, --coco FILE \
                         --images DIR any file",
                        folder.display(),
                        file.display()
                    )));
                }
                Self::coco(&file, args.images.as_deref().unwrap_or(&folder.join(split)))
            }
            _ => Err(Usage::error("expected --data DIR, or --coco FILE --images DIR")),
        }
    }

    /// A JSON file in COCO's format, and the folder of its pictures.
    pub fn coco(file: &Path, images: &Path) -> Result<Self> {
        let set = AnnotatedSet::from_coco(file).with_context(|| format!("reading {}", file.display()))?;
        Ok(Self { set, images: images.to_owned() })
    }

    /// The pictures that the list of the part names, or all where there is no list and none was asked for.
    fn voc(folder: &Path, args: &EvalArgs) -> Result<Self> {
        let mut set = AnnotatedSet::from_voc(folder)?;
        let list =
            folder.join("ImageSets/Main").join(format!("{}.txt", args.split.as_deref().unwrap_or(VOC_SPLIT)));
        if args.split.is_some() || list.is_file() {
            let names =
                std::fs::read_to_string(&list).with_context(|| format!("reading {}", list.display()))?;
            let names: Vec<&str> = names.lines().filter_map(|line| line.split_whitespace().next()).collect();
            set.images.retain(|image| {
                Path::new(&image.file)
                    .file_stem()
                    .and_then(|stem| stem.to_str())
                    .is_some_and(|stem| names.contains(&stem))
            });
        }
        let images = args.images.clone().unwrap_or_else(|| folder.join("JPEGImages"));
        Ok(Self { set, images })
    }
}

/// What `zoo eval --json` prints of a detector.
#[derive(Serialize)]
struct Report {
    pictures: usize,
    #[serde(flatten)]
    ap: CocoAp,
    /// Names of the classes, by the numbers that `per_class` has.
    classes: BTreeMap<usize, String>,
}

/// Measures what `detect` finds on each picture by itself, all boxes that it gives. `class_of` says which of the model's
/// classes a category of the data is, by number and name; what is of none of them is left out. One picture that cannot be
/// read ends it: the mean over the others would be of another set.
pub fn eval(
    data: Data,
    args: &EvalArgs,
    class_of: impl Fn(usize, &str) -> Option<usize>,
    mut detect: impl FnMut(&[Image]) -> Result<Vec<Detections>>,
) -> Result<()> {
    let Data { set, images } = data;
    let classes: BTreeMap<usize, usize> =
        set.categories.iter().filter_map(|(&id, name)| Some((id, class_of(id, name)?))).collect();
    if classes.is_empty() {
        return Err(Usage::error(format_args!(
            "none of the data's {} classes is one of the model's",
            set.categories.len()
        )));
    }
    let unknown: Vec<&str> = set
        .categories
        .iter()
        .filter(|(id, _)| !classes.contains_key(id))
        .map(|(_, name)| name.as_str())
        .collect();
    if !unknown.is_empty() {
        note(format_args!("left out, as the model does not know them: {}", unknown.join(", ")));
    }
    let count = set.images.len().min(args.limit.unwrap_or(usize::MAX));
    let progress = Progress::new(Some(count), "pictures");
    let (mut truth, mut found) = (Vec::with_capacity(count), Vec::with_capacity(count));
    for image in set.images.iter().take(count) {
        let picture = zoo_vision::read(images.join(&image.file))?;
        let boxes =
            detect(std::slice::from_ref(&picture)).with_context(|| format!("processing {}", image.file))?;
        found.extend(boxes);
        let known = image.objects.iter().filter_map(|&object| {
            let class_id = *classes.get(&object.object.class_id)?;
            Some(Truth { object: zoo_metrics::Object { class_id, ..object.object }, ..object })
        });
        truth.push(known.collect::<Vec<Truth>>());
        progress.step();
    }
    drop(progress);
    let ap = evaluate(&truth, &found)?;
    let named = classes.iter().filter_map(|(id, &class)| Some((class, set.categories.get(id)?.clone())));
    print(&Report { pictures: count, ap, classes: named.collect() }, args.json)
}

fn print(report: &Report, json: bool) -> Result<()> {
    let mut out = stdout().lock();
    if json {
        writeln!(out, "{}", serde_json::to_string_pretty(report)?)?;
        return Ok(());
    }
    let Report { pictures, ap, classes } = report;
    let mut by_class = Table::new(["class", "AP", "AP50"]);
    for (class, of_class) in &ap.per_class {
        let name = classes.get(class).cloned().unwrap_or_else(|| class.to_string());
        by_class.row([name, number(Some(of_class.ap), 3), number(Some(of_class.ap50), 3)]);
    }
    let mut table = Table::new(["AP", "AP50", "AP75", "small", "medium", "large"]);
    table.row([ap.ap, ap.ap50, ap.ap75, ap.small, ap.medium, ap.large].map(|value| number(value, 3)));
    writeln!(out, "{by_class}\n\n{table}\n{pictures} pictures")?;
    Ok(())
}
