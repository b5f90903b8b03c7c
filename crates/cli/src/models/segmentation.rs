//! `zoo eval MODEL --data DIR` of models that label every pixel.

use std::io::{Write, stdout};
use std::path::Path;

use anyhow::{Context, Result};
use serde::Serialize;
use zoo_core::{Image, SegClass, SegMap};
use zoo_metrics::segment::{ConfusionMatrix, IouRule, SegmentationScores};
use zoo_vision::{LabelledSet, Layout};

use crate::commands::eval::EvalArgs;
use crate::exit::Usage;
use crate::progress::Progress;
use crate::table::{Table, number};

#[derive(Serialize)]
struct Report<'a> {
    data: &'a Path,
    layout: Layout,
    split: &'a str,
    pictures: usize,
    iou_rule: IouRule,
    #[serde(skip_serializing_if = "Option::is_none")]
    weights: Option<&'a str>,
    #[serde(flatten)]
    scores: SegmentationScores,
}

/// A labelled data set as the command line names it.
pub struct Data<'a> {
    pub at: &'a Path,
    pub layout: Layout,
    pub split: &'a str,
    pub set: LabelledSet,
    /// How many pictures of it count.
    pub pictures: usize,
}

impl<'a> Data<'a> {
    /// Opens it for a model of the classes `legend`.
    pub fn open(legend: &[SegClass], args: &'a EvalArgs) -> Result<Self> {
        let Some(at) = args.data.as_deref() else {
            return Err(Usage::error(
                "expected --data DIR, a folder laid out as CamVid, Cityscapes or PASCAL VOC",
            ));
        };
        let layout = args.layout.map_or_else(|| Layout::detect(at), Ok)?;
        let split = args.split.as_deref().unwrap_or(layout.default_split());
        let set = LabelledSet::open(at, layout, split, layout.classes_for(legend)?)
            .with_context(|| format!("opening {} as {layout}, part {split}", at.display()))?;
        let pictures = set.len().min(args.limit.unwrap_or(usize::MAX));
        Ok(Self { at, layout, split, set, pictures })
    }

    /// An empty matrix of its classes.
    pub fn matrix(&self) -> Result<ConfusionMatrix> {
        matrix_of(&self.set)
    }
}

fn matrix_of(set: &LabelledSet) -> Result<ConfusionMatrix> {
    let classes = u8::try_from(set.classes().len()).context("classes of a data set")?;
    Ok(ConfusionMatrix::new(classes, Some(SegMap::IGNORED)))
}

/// Measures what `segment`, a model of the classes `legend`, makes of a labelled data set.
pub fn eval(
    legend: &[SegClass],
    rule: IouRule,
    args: &EvalArgs,
    segment: impl FnMut(&[Image]) -> Result<Vec<SegMap>>,
) -> Result<()> {
    let data = Data::open(legend, args)?;
    let matrix = confusion(&data.set, data.pictures, segment)?;
    let scores = matrix.summary(rule, name_of(legend));
    let Data { at, layout, split, pictures, .. } = data;
    let weights = args.weights.random.then_some("random weights");
    print(&Report { data: at, layout, split, pictures, iou_rule: rule, weights, scores }, args.json)
}

/// What a class is called.
pub fn name_of(legend: &[SegClass]) -> impl Fn(usize) -> String {
    |class| legend.get(class).map_or_else(String::new, |class| class.name.to_string())
}

/// What is predicted of the first pictures, counted against their labels. One that cannot be read ends it: the mean
/// over the others would be of another set.
fn confusion(
    set: &LabelledSet,
    pictures: usize,
    mut segment: impl FnMut(&[Image]) -> Result<Vec<SegMap>>,
) -> Result<ConfusionMatrix> {
    let mut matrix = matrix_of(set)?;
    let progress = Progress::new(Some(pictures), set.classes().name());
    for labelled in set.iter().take(pictures) {
        let labelled = labelled?;
        let maps = segment(std::slice::from_ref(&labelled.image))
            .with_context(|| format!("processing {}", labelled.path.display()))?;
        for map in maps {
            matrix.add(&map.classes, &labelled.truth.classes).with_context(|| labelled.name.clone())?;
        }
        progress.step();
    }
    Ok(matrix)
}

fn print(report: &Report, json: bool) -> Result<()> {
    let mut out = stdout().lock();
    if json {
        writeln!(out, "{}", serde_json::to_string_pretty(report)?)?;
        return Ok(());
    }
    let Report { layout, split, pictures, weights, scores, .. } = report;
    let table = table(scores);
    let caveat = weights.map(|weights| format!("; {weights}")).unwrap_or_default();
    writeln!(
        out,
        "{table}\n{layout}, {split}: {pictures} pictures, pixel accuracy {}{caveat}",
        number(scores.pixel_accuracy, 4)
    )?;
    Ok(())
}

/// A row a class, and the means.
pub fn table(scores: &SegmentationScores) -> Table {
    let mut table = Table::new(["class", "IoU", "accuracy", "of the pixels"]);
    for class in &scores.classes {
        table.row([
            class.label.clone(),
            number(class.iou, 4),
            number(class.accuracy, 4),
            format!("{:.2} %", 100.0 * class.pixels as f64 / scores.pixels.max(1) as f64),
        ]);
    }
    table.row(["mean".to_owned(), number(scores.mean_iou, 4), number(scores.mean_accuracy, 4)]);
    table
}

#[cfg(test)]
mod tests {
    use std::fs;

    use zoo_core::labels::{CAMVID_12, CITYSCAPES_19, SegLabels, VOC_21};
    use zoo_core::{FrameSize, Image};
    use zoo_vision::write;

    use super::*;

    const SIZE: FrameSize = FrameSize::new(6, 10);

    /// Two pictures in a layout, whose labels are the legend's classes in turn.
    fn made(root: &Path, layout: Layout, labels: SegLabels) {
        for name in ["a_1", "a_2"] {
            let (picture, truth) = match layout {
                Layout::CamVid => (format!("test/{name}.png"), format!("test_labels/{name}_L.png")),
                Layout::SegNet => (format!("test/{name}.png"), format!("testannot/{name}.png")),
                Layout::Cityscapes => (
                    format!("leftImg8bit/val/a/{name}_leftImg8bit.png"),
                    format!("gtFine/val/a/{name}_gtFine_labelIds.png"),
                ),
                _ => (format!("JPEGImages/{name}.jpg"), format!("SegmentationClass/{name}.png")),
            };
            let (picture, truth) = (root.join(picture), root.join(truth));
            for path in [&picture, &truth] {
                fs::create_dir_all(path.parent().unwrap()).unwrap();
            }
            write::image(&picture, &Image::filled(SIZE, [90; 3]).unwrap()).unwrap();
            let classes: Vec<u8> = (0..SIZE.area()).map(|i| (i % labels.len()) as u8).collect();
            if layout == Layout::CamVid {
                let colors = classes.iter().flat_map(|class| labels.classes()[usize::from(*class)].color);
                write::image(&truth, &Image::new(SIZE, colors.collect()).unwrap()).unwrap();
            } else {
                let map = SegMap::new(SIZE, classes, labels.legend()).unwrap();
                write::mask_of_ids(&truth, &map).unwrap();
            }
        }
        let list = root.join("ImageSets/Segmentation");
        fs::create_dir_all(&list).unwrap();
        fs::write(list.join("val.txt"), "a_1\na_2\n").unwrap();
    }

    #[test]
    fn the_truth_itself_scores_1_in_every_layout_and_a_wrong_class_less() {
        for (layout, labels) in [
            (Layout::CamVid, CAMVID_12),
            (Layout::SegNet, CAMVID_12),
            (Layout::Cityscapes, CITYSCAPES_19),
            (Layout::Voc, VOC_21),
        ] {
            let root = tempfile::tempdir().unwrap();
            made(root.path(), layout, labels);
            assert_eq!(Layout::detect(root.path()).unwrap(), layout);
            let classes = layout.classes_for(labels.classes()).unwrap();
            let set = LabelledSet::open(root.path(), layout, layout.default_split(), classes).unwrap();
            let truths: Vec<SegMap> = set.pairs().iter().map(|pair| set.truth(pair).unwrap()).collect();
            let score = |change: &dyn Fn(&mut SegMap)| {
                let mut truths = truths.iter().cloned();
                let matrix = confusion(&set, set.len(), |_| {
                    let mut map = truths.next().unwrap();
                    change(&mut map);
                    Ok(vec![map])
                });
                matrix.unwrap().summary(IouRule::HYPERSEG, |class| class.to_string())
            };
            let perfect = score(&|_| {});
            // HyperSeg's ε leaves a millionth of each class's few pixels.
            assert!((perfect.mean_iou.unwrap() - 1.0).abs() < 1e-6, "{layout}: {perfect:?}");
            assert_eq!(perfect.pixel_accuracy, Some(1.0), "{layout}");
            assert_eq!(perfect.pixels, 2 * SIZE.area() as u64, "{layout}");
            let wrong = score(&|map| map.classes.fill(0));
            let share =
                truths[0].classes.iter().filter(|class| **class == 0).count() as f64 / SIZE.area() as f64;
            assert!((wrong.pixel_accuracy.unwrap() - share).abs() < 1e-12, "{layout}: {wrong:?}");
            assert!((wrong.mean_iou.unwrap() - share / labels.len() as f64).abs() < 1e-6, "{layout}");
        }
    }
}
