//! Where data sets keep their pictures and labels.

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use zoo_core::labels::{CAMVID_11, CAMVID_12, CITYSCAPES_19, VOC_21};
use zoo_core::{SegClass, SegLabels};

use super::Pair;
use crate::natural::natural_order;
use crate::source::pictures_in;
use crate::{Error, Result};

/// Cityscapes' endings of a picture and of its labels.
const CITYSCAPES_PICTURE: &str = "_leftImg8bit";
const CITYSCAPES_LABELS: &str = "_gtFine_labelIds";
/// Its folder of pictures.
const CITYSCAPES_FOLDER: &str = "leftImg8bit";
/// CamVid's ending of labels.
const CAMVID_LABELS: &str = "_L";

/// How a data set lies in its folder.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum Layout {
    /// CamVid as its authors give it: `test/x.png` and, in the data set's colours, `test_labels/x_L.png`. The finer
    /// classes' colours do not count.
    CamVid,
    /// CamVid as the SegNet tutorial gives it: `test/x.png` and, in numbers, `testannot/x.png`.
    SegNet,
    /// `leftImg8bit/val/CITY/x_leftImg8bit.png` and, in label ids, `gtFine/val/CITY/x_gtFine_labelIds.png`.
    Cityscapes,
    /// PASCAL VOC: `JPEGImages/x.jpg` and `SegmentationClass/x.png` for each line x of
    /// `ImageSets/Segmentation/val.txt`.
    Voc,
}

impl fmt::Display for Layout {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::CamVid => "CamVid",
            Self::SegNet => "CamVid (SegNet tutorial)",
            Self::Cityscapes => "Cityscapes",
            Self::Voc => "PASCAL VOC",
        })
    }
}

impl Layout {
    /// All that are known.
    pub const ALL: [Self; 4] = [Self::CamVid, Self::SegNet, Self::Cityscapes, Self::Voc];

    /// In one word, as command lines take it.
    pub fn name(self) -> &'static str {
        match self {
            Self::CamVid => "camvid",
            Self::SegNet => "segnet",
            Self::Cityscapes => "cityscapes",
            Self::Voc => "voc",
        }
    }

    /// The layout of that name.
    pub fn parse(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|layout| layout.name() == name)
    }

    /// Tells by the folders inside which data set a folder holds.
    ///
    /// # Errors
    /// If it is none of them, or cannot be listed.
    pub fn detect(root: &Path) -> Result<Self> {
        let names: Vec<String> = folders(root)?.into_iter().map(|(name, _)| name).collect();
        let has = |is: &dyn Fn(&str) -> bool| names.iter().any(|name| is(name));
        if has(&|name| name == "SegmentationClass") {
            Ok(Self::Voc)
        } else if has(&|name| name == "gtFine") {
            Ok(Self::Cityscapes)
        } else if has(&|name| name.ends_with("_labels")) {
            Ok(Self::CamVid)
        } else if has(&|name| name.ends_with("annot")) {
            Ok(Self::SegNet)
        } else {
            Err(Error::NotLabelled { name: root.display().to_string() })
        }
    }

    /// The classes that the data set is scored on, where a model has no other opinion.
    pub fn classes(self) -> SegLabels {
        match self {
            Self::CamVid => CAMVID_12,
            Self::SegNet => CAMVID_11,
            Self::Cityscapes => CITYSCAPES_19,
            Self::Voc => VOC_21,
        }
    }

    /// What the labels are to be read as for a model of these classes: the data set's own, or CamVid's with or
    /// without void.
    ///
    /// # Errors
    /// If the model has the classes of another data set.
    pub fn classes_for(self, model: &[SegClass]) -> Result<SegLabels> {
        let known: &[SegLabels] = match self {
            Self::CamVid | Self::SegNet => &[CAMVID_12, CAMVID_11],
            Self::Cityscapes => &[CITYSCAPES_19],
            Self::Voc => &[VOC_21],
        };
        known.iter().find(|labels| labels.classes() == model).copied().ok_or_else(|| Error::OtherClasses {
            layout: self,
            expected: counted(self.classes().classes()),
            got: counted(model),
        })
    }

    /// The part that the papers' numbers are of.
    pub fn default_split(self) -> &'static str {
        match self {
            Self::CamVid | Self::SegNet => "test",
            Self::Cityscapes | Self::Voc => "val",
        }
    }

    /// The folder of the video that a picture is a frame of.
    pub(super) fn video_of(self, picture: &Path) -> PathBuf {
        let folder = picture.parent().unwrap_or(Path::new("."));
        if self != Self::Cityscapes {
            return folder.to_owned();
        }
        let parts = folder.iter().map(|part| match part.to_str() {
            Some(CITYSCAPES_FOLDER) => "leftImg8bit_sequence".as_ref(),
            _ => part,
        });
        parts.collect()
    }

    /// Whether labels are colours, else they are numbers.
    pub(super) fn in_color(self) -> bool {
        self == Self::CamVid
    }

    /// All pictures of a split with their labels, in natural order.
    pub(super) fn pairs(self, root: &Path, split: &str) -> Result<Vec<Pair>> {
        match self {
            Self::CamVid => {
                let (pictures, labels) = (root.join(split), root.join(format!("{split}_labels")));
                matched(stems(&pictures, "")?, &pictures, stems(&labels, CAMVID_LABELS)?, &labels)
            }
            Self::SegNet => {
                let (pictures, labels) = (root.join(split), root.join(format!("{split}annot")));
                matched(stems(&pictures, "")?, &pictures, stems(&labels, "")?, &labels)
            }
            Self::Cityscapes => {
                let (pictures, labels) =
                    (root.join(CITYSCAPES_FOLDER).join(split), root.join("gtFine").join(split));
                let in_cities = |folder: &Path, ending| -> Result<Stems> {
                    let mut all = Stems::new();
                    for (_, city) in folders(folder)? {
                        all.append(&mut stems(&city, ending)?);
                    }
                    Ok(all)
                };
                let found =
                    (in_cities(&pictures, CITYSCAPES_PICTURE)?, in_cities(&labels, CITYSCAPES_LABELS)?);
                matched(found.0, &pictures, found.1, &labels)
            }
            Self::Voc => voc(root, split),
        }
    }
}

/// How many classes, and the first of them.
fn counted(classes: &[SegClass]) -> String {
    let first: Vec<&str> = classes.iter().take(3).map(|class| class.name.as_ref()).collect();
    format!("{} classes ({}, …)", classes.len(), first.join(", "))
}

/// Names without ending, and the files.
type Stems = BTreeMap<String, PathBuf>;

/// The pictures of a folder whose names end so, by what stands before.
fn stems(folder: &Path, ending: &str) -> Result<Stems> {
    let named = |path: PathBuf| {
        let stem = path.file_stem()?.to_str()?.strip_suffix(ending)?.to_owned();
        Some((stem, path))
    };
    Ok(pictures_in(folder)?.into_iter().filter_map(named).collect())
}

/// The folders in a folder.
fn folders(root: &Path) -> Result<Vec<(String, PathBuf)>> {
    let failed = |source| Error::Read { name: root.display().to_string(), source };
    let mut found = Vec::new();
    for entry in root.read_dir().map_err(failed)? {
        let path = entry.map_err(failed)?.path();
        if let Some(name) = path.file_name().and_then(|name| name.to_str()).filter(|_| path.is_dir()) {
            found.push((name.to_owned(), path.clone()));
        }
    }
    Ok(found)
}

/// Puts pictures and labels of the same name together.
fn matched(pictures: Stems, at: &Path, mut labels: Stems, labels_at: &Path) -> Result<Vec<Pair>> {
    if pictures.is_empty() {
        return Err(Error::NoPictures { name: at.display().to_string(), expected: "png, jpg".to_owned() });
    }
    let (mut pairs, mut alone) = (Vec::with_capacity(pictures.len()), Vec::new());
    for (name, image) in pictures {
        match labels.remove(&name) {
            Some(labels) => pairs.push(Pair { name, image, labels }),
            None => alone.push(image),
        }
    }
    let all = pairs.len() + alone.len() + labels.len();
    alone.extend(labels.into_values());
    if let Some(first) = alone.first() {
        return Err(Error::Unpaired {
            pictures: at.display().to_string(),
            labels: labels_at.display().to_string(),
            alone: alone.len(),
            all,
            first: first.display().to_string(),
        });
    }
    pairs.sort_by(|a, b| natural_order(&a.name, &b.name));
    Ok(pairs)
}

fn voc(root: &Path, split: &str) -> Result<Vec<Pair>> {
    let list = root.join("ImageSets/Segmentation").join(format!("{split}.txt"));
    let named = || list.display().to_string();
    let text = std::fs::read_to_string(&list).map_err(|source| Error::Read { name: named(), source })?;
    let mut pairs = Vec::new();
    for name in text.lines().map(str::trim).filter(|line| !line.is_empty()) {
        if name.contains(['/', '\\']) {
            return Err(Error::Labels {
                name: named(),
                reason: format!("expected one name of a picture a line, got `{name}`"),
            });
        }
        let (image, labels) =
            (root.join(format!("JPEGImages/{name}.jpg")), root.join(format!("SegmentationClass/{name}.png")));
        pairs.push(Pair { name: name.to_owned(), image, labels });
    }
    let alone = || pairs.iter().flat_map(|pair| [&pair.image, &pair.labels]).filter(|path| !path.is_file());
    if let Some(first) = alone().next() {
        return Err(Error::Listed {
            list: named(),
            missing: alone().count(),
            first: first.display().to_string(),
        });
    }
    if pairs.is_empty() {
        return Err(Error::Empty { name: named() });
    }
    Ok(pairs)
}
