//! Class names of the data sets that the zoo's weights were trained on; of segmentation data sets colours and file
//! numbers, too.

mod imagenet;
mod segmentation;

use std::borrow::Cow;

pub use imagenet::IMAGENET_1K;
pub use segmentation::{CAMVID_11, CAMVID_12, CITYSCAPES_19, SegClass, SegLabels, VOC_21};

/// Class names by index; `None` where the data set leaves a number unused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Labels(&'static [Option<&'static str>]);

impl Labels {
    /// The name of a class, if the data set has one under this number.
    pub fn get(&self, class_id: usize) -> Option<&'static str> {
        self.0.get(class_id).copied().flatten()
    }

    /// The name of a class, or `class N`.
    pub fn name(&self, class_id: usize) -> Cow<'static, str> {
        self.get(class_id).map_or_else(|| format!("class {class_id}").into(), Cow::Borrowed)
    }

    /// Number of indices, unused ones counted.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there is no class at all.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The classes that have a name, with their numbers.
    pub fn iter(&self) -> impl Iterator<Item = (usize, &'static str)> + use<> {
        self.0.iter().enumerate().filter_map(|(i, name)| name.map(|name| (i, name)))
    }
}

/// COCO's category ids: 0 is the background, 80 of the numbers 1 to 90 name a category.
pub const COCO: Labels = Labels(&[
    None,
    Some("person"),
    Some("bicycle"),
    Some("car"),
    Some("motorcycle"),
    Some("airplane"),
    Some("bus"),
    Some("train"),
    Some("truck"),
    Some("boat"),
    Some("traffic light"),
    Some("fire hydrant"),
    None,
    Some("stop sign"),
    Some("parking meter"),
    Some("bench"),
    Some("bird"),
    Some("cat"),
    Some("dog"),
    Some("horse"),
    Some("sheep"),
    Some("cow"),
    Some("elephant"),
    Some("bear"),
    Some("zebra"),
    Some("giraffe"),
    None,
    Some("backpack"),
    Some("umbrella"),
    None,
    None,
    Some("handbag"),
    Some("tie"),
    Some("suitcase"),
    Some("frisbee"),
    Some("skis"),
    Some("snowboard"),
    Some("sports ball"),
    Some("kite"),
    Some("baseball bat"),
    Some("baseball glove"),
    Some("skateboard"),
    Some("surfboard"),
    Some("tennis racket"),
    Some("bottle"),
    None,
    Some("wine glass"),
    Some("cup"),
    Some("fork"),
    Some("knife"),
    Some("spoon"),
    Some("bowl"),
    Some("banana"),
    Some("apple"),
    Some("sandwich"),
    Some("orange"),
    Some("broccoli"),
    Some("carrot"),
    Some("hot dog"),
    Some("pizza"),
    Some("donut"),
    Some("cake"),
    Some("chair"),
    Some("couch"),
    Some("potted plant"),
    Some("bed"),
    None,
    Some("dining table"),
    None,
    None,
    Some("toilet"),
    None,
    Some("tv"),
    Some("laptop"),
    Some("mouse"),
    Some("remote"),
    Some("keyboard"),
    Some("cell phone"),
    Some("microwave"),
    Some("oven"),
    Some("toaster"),
    Some("sink"),
    Some("refrigerator"),
    None,
    Some("book"),
    Some("clock"),
    Some("vase"),
    Some("scissors"),
    Some("teddy bear"),
    Some("hair drier"),
    Some("toothbrush"),
]);

/// ImageNet VID's 30 categories behind a background at 0, by name, as the challenge lists them.
pub const IMAGENET_VID: Labels = Labels(&[
    None,
    Some("airplane"),
    Some("antelope"),
    Some("bear"),
    Some("bicycle"),
    Some("bird"),
    Some("bus"),
    Some("car"),
    Some("cattle"),
    Some("dog"),
    Some("domestic cat"),
    Some("elephant"),
    Some("fox"),
    Some("giant panda"),
    Some("hamster"),
    Some("horse"),
    Some("lion"),
    Some("lizard"),
    Some("monkey"),
    Some("motorcycle"),
    Some("rabbit"),
    Some("red panda"),
    Some("sheep"),
    Some("snake"),
    Some("squirrel"),
    Some("tiger"),
    Some("train"),
    Some("turtle"),
    Some("watercraft"),
    Some("whale"),
    Some("zebra"),
]);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn coco_has_eighty_categories_at_the_ids_of_the_data_set() {
        assert_eq!(COCO.len(), 91);
        assert_eq!(COCO.iter().count(), 80);
        for (id, name) in
            [(1, "person"), (6, "bus"), (17, "cat"), (47, "cup"), (67, "dining table"), (90, "toothbrush")]
        {
            assert_eq!(COCO.get(id), Some(name));
        }
        for unused in [0, 12, 26, 29, 30, 45, 66, 68, 69, 71, 83, 91] {
            assert_eq!(COCO.get(unused), None, "id {unused}");
        }
        assert_eq!(COCO.name(12), "class 12");
    }

    #[test]
    fn vid_has_thirty_categories() {
        assert_eq!(IMAGENET_VID.len(), 31);
        assert_eq!(IMAGENET_VID.iter().count(), 30);
    }
}
