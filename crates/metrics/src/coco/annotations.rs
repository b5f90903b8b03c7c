//! Annotated images of COCO-style JSON files and of PASCAL VOC folders.

use std::collections::BTreeMap;
use std::path::Path;

use hotcoco::{COCO, Dataset};
use zoo_core::BBox;

use super::Truth;
use crate::{Error, Object, Result};

/// A data set's images and the objects on them.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct AnnotatedSet {
    /// Names of the classes by their numbers in the set.
    pub categories: BTreeMap<usize, String>,
    /// In the file's order; those without objects too.
    pub images: Vec<AnnotatedImage>,
}

/// An image and what is on it.
#[derive(Debug, Clone, PartialEq)]
pub struct AnnotatedImage {
    /// The set's number of the image; in VOC, which has none, counted from 1.
    pub id: u64,
    /// The picture's file, as the set names it.
    pub file: String,
    /// The objects.
    pub objects: Vec<Truth>,
}

impl AnnotatedSet {
    /// Reads a JSON file in COCO's format. Annotations without a box are left out.
    ///
    /// # Errors
    /// If the file cannot be read or is not of the format.
    pub fn from_coco(path: &Path) -> Result<Self> {
        let file = COCO::new(path).map_err(|source| Error::CocoFile {
            what: "ground truth",
            path: path.to_path_buf(),
            source,
        })?;
        Ok(Self::of(&file.dataset))
    }

    /// Reads the XML files in `folder/Annotations`, or in the folder itself, in the order of their names. Objects marked
    /// as difficult become crowds, which count neither way; the first pixel of a picture, 1 there, is 0 here. Classes are
    /// numbered from 1 on in the order of their names.
    ///
    /// # Errors
    /// If a file cannot be read or is not of the format, or there is none.
    pub fn from_voc(folder: &Path) -> Result<Self> {
        let fault = |source| Error::VocFolder { path: folder.to_path_buf(), source };
        let set = Self::of(&hotcoco::convert::voc_to_coco(folder).map_err(|source| fault(Box::new(source)))?);
        if set.images.is_empty() {
            return Err(fault("there is no XML file".into()));
        }
        Ok(set)
    }

    fn of(dataset: &Dataset) -> Self {
        let mut objects: BTreeMap<u64, Vec<Truth>> = BTreeMap::new();
        for annotation in &dataset.annotations {
            let Some([x, y, w, h]) = annotation.bbox else { continue };
            let [x0, y0, x1, y1] = [x, y, x + w, y + h].map(|v| v as f32);
            let object = Object::new(annotation.category_id as usize, BBox::new(x0, y0, x1, y1));
            let truth = Truth { object, area: annotation.area, crowd: annotation.iscrowd };
            objects.entry(annotation.image_id).or_default().push(truth);
        }
        let categories = dataset.categories.iter().map(|class| (class.id as usize, class.name.clone()));
        let images = dataset.images.iter().map(|image| AnnotatedImage {
            id: image.id,
            file: image.file_name.clone(),
            objects: objects.remove(&image.id).unwrap_or_default(),
        });
        Self { categories: categories.collect(), images: images.collect() }
    }
}
