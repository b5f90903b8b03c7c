//! Segmentation data sets: names, colours, and the numbers that their label files hold.

use std::borrow::Cow;

use serde::{Deserialize, Serialize};

use crate::SegMap;

/// One class of a segmentation data set.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SegClass {
    /// What it is called.
    pub name: Cow<'static, str>,
    /// The number that the data set's label files give it; often, but not always, the class index.
    pub id: u8,
    /// The colour that the data set draws it in.
    pub color: [u8; 3],
}

impl SegClass {
    /// A class from its three parts.
    pub const fn new(name: &'static str, id: u8, color: [u8; 3]) -> Self {
        Self { name: Cow::Borrowed(name), id, color }
    }
}

/// The classes of a segmentation data set, by the index that nets give them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SegLabels {
    name: &'static str,
    classes: &'static [SegClass],
    ignored: &'static [u8],
}

impl SegLabels {
    /// The data set's name.
    pub const fn name(&self) -> &'static str {
        self.name
    }

    /// The classes in the order of their indices.
    pub const fn classes(&self) -> &'static [SegClass] {
        self.classes
    }

    /// Number of classes.
    pub const fn len(&self) -> usize {
        self.classes.len()
    }

    /// Whether there is no class at all.
    pub const fn is_empty(&self) -> bool {
        self.classes.is_empty()
    }

    /// What a [`SegMap`] of these classes carries; nothing is copied.
    pub const fn legend(&self) -> Cow<'static, [SegClass]> {
        Cow::Borrowed(self.classes)
    }

    /// Numbers that label files hold at pixels which do not count.
    pub const fn ignored_ids(&self) -> &'static [u8] {
        self.ignored
    }

    /// The class index that a number of a label file means, [`SegMap::IGNORED`] for one that does not count, `None`
    /// for one that such files do not hold.
    pub fn class_of_id(&self, id: u8) -> Option<u8> {
        let ignored = || self.ignored.contains(&id).then_some(SegMap::IGNORED);
        self.index_of(|class| class.id == id).or_else(ignored)
    }

    /// The class of exactly this colour.
    pub fn class_of_color(&self, color: [u8; 3]) -> Option<u8> {
        self.index_of(|class| class.color == color)
    }

    fn index_of(&self, is: impl Fn(&SegClass) -> bool) -> Option<u8> {
        self.classes.iter().position(is).and_then(|index| u8::try_from(index).ok())
    }
}

/// PASCAL VOC's 20 categories behind a background at 0; 255 marks borders and what is hard to tell.
pub const VOC_21: SegLabels = SegLabels {
    name: "PASCAL VOC",
    classes: &[
        SegClass::new("background", 0, [0, 0, 0]),
        SegClass::new("aeroplane", 1, [128, 0, 0]),
        SegClass::new("bicycle", 2, [0, 128, 0]),
        SegClass::new("bird", 3, [128, 128, 0]),
        SegClass::new("boat", 4, [0, 0, 128]),
        SegClass::new("bottle", 5, [128, 0, 128]),
        SegClass::new("bus", 6, [0, 128, 128]),
        SegClass::new("car", 7, [128, 128, 128]),
        SegClass::new("cat", 8, [64, 0, 0]),
        SegClass::new("chair", 9, [192, 0, 0]),
        SegClass::new("cow", 10, [64, 128, 0]),
        SegClass::new("diningtable", 11, [192, 128, 0]),
        SegClass::new("dog", 12, [64, 0, 128]),
        SegClass::new("horse", 13, [192, 0, 128]),
        SegClass::new("motorbike", 14, [64, 128, 128]),
        SegClass::new("person", 15, [192, 128, 128]),
        SegClass::new("pottedplant", 16, [0, 64, 0]),
        SegClass::new("sheep", 17, [128, 64, 0]),
        SegClass::new("sofa", 18, [0, 192, 0]),
        SegClass::new("train", 19, [128, 192, 0]),
        SegClass::new("tvmonitor", 20, [0, 64, 128]),
    ],
    ignored: &[255],
};

/// The 19 classes that Cityscapes scores. Indices are its train ids, [`SegClass::id`] its label ids, of which the
/// others do not count (255 stands for the license plate's −1).
pub const CITYSCAPES_19: SegLabels = SegLabels {
    name: "Cityscapes",
    classes: &[
        SegClass::new("road", 7, [128, 64, 128]),
        SegClass::new("sidewalk", 8, [244, 35, 232]),
        SegClass::new("building", 11, [70, 70, 70]),
        SegClass::new("wall", 12, [102, 102, 156]),
        SegClass::new("fence", 13, [190, 153, 153]),
        SegClass::new("pole", 17, [153, 153, 153]),
        SegClass::new("traffic light", 19, [250, 170, 30]),
        SegClass::new("traffic sign", 20, [220, 220, 0]),
        SegClass::new("vegetation", 21, [107, 142, 35]),
        SegClass::new("terrain", 22, [152, 251, 152]),
        SegClass::new("sky", 23, [70, 130, 180]),
        SegClass::new("person", 24, [220, 20, 60]),
        SegClass::new("rider", 25, [255, 0, 0]),
        SegClass::new("car", 26, [0, 0, 142]),
        SegClass::new("truck", 27, [0, 0, 70]),
        SegClass::new("bus", 28, [0, 60, 100]),
        SegClass::new("train", 31, [0, 80, 100]),
        SegClass::new("motorcycle", 32, [0, 0, 230]),
        SegClass::new("bicycle", 33, [119, 11, 32]),
    ],
    ignored: &[0, 1, 2, 3, 4, 5, 6, 9, 10, 14, 15, 16, 18, 29, 30, 255],
};

/// CamVid's eleven classes and void, in the order of the SegNet tutorial's index files.
const CAMVID: &[SegClass; 12] = &[
    SegClass::new("Sky", 0, [128, 128, 128]),
    SegClass::new("Building", 1, [128, 0, 0]),
    SegClass::new("Column-Pole", 2, [192, 192, 128]),
    SegClass::new("Road", 3, [128, 64, 128]),
    SegClass::new("Sidewalk", 4, [0, 0, 192]),
    SegClass::new("Tree", 5, [128, 128, 0]),
    SegClass::new("Sign-Symbol", 6, [192, 128, 128]),
    SegClass::new("Fence", 7, [64, 64, 128]),
    SegClass::new("Car", 8, [64, 0, 128]),
    SegClass::new("Pedestrian", 9, [64, 64, 0]),
    SegClass::new("Bicyclist", 10, [0, 128, 192]),
    SegClass::new("Void", 11, [0, 0, 0]),
];

/// CamVid with void as a class of its own, trained and scored, as HyperSeg has it.
pub const CAMVID_12: SegLabels = SegLabels { name: "CamVid with void", classes: CAMVID, ignored: &[255] };

/// CamVid's eleven classes; void does not count.
pub const CAMVID_11: SegLabels =
    SegLabels { name: "CamVid", classes: CAMVID.split_at(11).0, ignored: &[11, 255] };

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn each_data_set_has_its_classes_once() {
        for (labels, classes) in [(VOC_21, 21), (CITYSCAPES_19, 19), (CAMVID_12, 12), (CAMVID_11, 11)] {
            let name = labels.name();
            assert_eq!((labels.len(), labels.is_empty()), (classes, false), "{name}");
            let names: HashSet<&str> = labels.classes().iter().map(|class| class.name.as_ref()).collect();
            let colors: HashSet<[u8; 3]> = labels.classes().iter().map(|class| class.color).collect();
            let ids: HashSet<u8> = labels.classes().iter().map(|class| class.id).collect();
            assert_eq!((names.len(), colors.len(), ids.len()), (classes, classes, classes), "{name}");
            for (index, class) in labels.classes().iter().enumerate() {
                assert_eq!(labels.class_of_id(class.id), Some(index as u8), "{name}");
                assert_eq!(labels.class_of_color(class.color), Some(index as u8), "{name}");
                assert!(!labels.ignored_ids().contains(&class.id), "{name}: {} is ignored", class.name);
            }
        }
    }

    /// VOC's colours are the bits of the index, spread over the three channels from the top.
    #[test]
    fn vocs_palette_follows_its_rule() {
        for (index, class) in VOC_21.classes().iter().enumerate() {
            let mut color = [0u8; 3];
            for (bit, shift) in (0..8).map(|bit| (bit, 7 - bit / 3)) {
                color[bit % 3] |= ((index >> bit & 1) as u8) << shift;
            }
            assert_eq!(class.color, color, "{}", class.name);
        }
    }

    #[test]
    fn cityscapes_knows_34_label_ids_and_the_license_plates() {
        let known = |id: &u8| CITYSCAPES_19.class_of_id(*id).is_some();
        let ids: Vec<u8> = (0..=255).filter(known).collect();
        assert_eq!(ids, (0..34).chain([255]).collect::<Vec<u8>>());
        assert_eq!(CITYSCAPES_19.class_of_id(33), Some(18));
        assert_eq!(CITYSCAPES_19.class_of_id(0), Some(SegMap::IGNORED));
    }

    #[test]
    fn camvids_void_counts_or_does_not() {
        assert_eq!(CAMVID_12.class_of_id(11), Some(11));
        assert_eq!(CAMVID_11.class_of_id(11), Some(SegMap::IGNORED));
        assert_eq!(CAMVID_11.class_of_color([0, 0, 0]), None);
        assert_eq!(CAMVID_11.class_of_id(12), None);
        assert_eq!(CAMVID_11.classes(), &CAMVID_12.classes()[..11]);
    }
}
