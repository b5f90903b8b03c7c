//! Pictures with a true class for every pixel, as segmentation data sets hand them out.

mod layout;
mod pixels;
mod snippet;

use std::path::{Path, PathBuf};

use zoo_core::{Image, SegLabels, SegMap};

use crate::{Error, Limits, Result, read_with};
pub use layout::Layout;

/// A picture and its label file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pair {
    /// What the data set calls it.
    pub name: String,
    /// The picture's file.
    pub image: PathBuf,
    /// The label file.
    pub labels: PathBuf,
}

/// A picture with its true classes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Labelled {
    /// What the data set calls it.
    pub name: String,
    /// The picture's file.
    pub path: PathBuf,
    /// The picture.
    pub image: Image,
    /// A class for each of its pixels; [`SegMap::IGNORED`] where the data set does not count one.
    pub truth: SegMap,
}

/// One part (`train`, `val`, `test`) of a segmentation data set in a folder.
///
/// ```no_run
/// use zoo_vision::{LabelledSet, Layout};
///
/// let root = std::path::Path::new("CamVid");
/// let layout = Layout::detect(root)?;
/// let set = LabelledSet::open(root, layout, layout.default_split(), layout.classes())?;
/// for labelled in set.iter() {
///     let labelled = labelled?;
///     println!("{}: {:#}", labelled.name, labelled.image.size());
/// }
/// # Ok::<(), zoo_vision::Error>(())
/// ```
#[derive(Debug, Clone)]
pub struct LabelledSet {
    layout: Layout,
    classes: SegLabels,
    pairs: Vec<Pair>,
    limits: Limits,
}

impl LabelledSet {
    /// Finds the pictures and their labels, which will be read as `classes`: the layout's own
    /// ([`Layout::classes`]), or another set of the same numbers or colours.
    ///
    /// # Errors
    /// If a folder or list cannot be read or is empty, or a picture or label file has no partner.
    pub fn open(root: impl AsRef<Path>, layout: Layout, split: &str, classes: SegLabels) -> Result<Self> {
        let pairs = layout.pairs(root.as_ref(), split)?;
        Ok(Self { layout, classes, pairs, limits: Limits::default() })
    }

    /// Reads files within these limits instead of the default ones.
    #[must_use]
    pub fn with_limits(self, limits: Limits) -> Self {
        Self { limits, ..self }
    }

    /// What labels are read as.
    pub fn classes(&self) -> SegLabels {
        self.classes
    }

    /// The files, in natural order; in VOC's in the order of its list.
    pub fn pairs(&self) -> &[Pair] {
        &self.pairs
    }

    /// Number of pictures.
    pub fn len(&self) -> usize {
        self.pairs.len()
    }

    /// Whether there is no picture; [`LabelledSet::open`] gives no such set.
    pub fn is_empty(&self) -> bool {
        self.pairs.is_empty()
    }

    /// Reads one picture and its labels.
    ///
    /// # Errors
    /// If a file cannot be read, the two differ in size, or the labels hold a number that the data set does not have.
    pub fn read(&self, pair: &Pair) -> Result<Labelled> {
        let image = read_with(&pair.image, &self.limits)?;
        let truth = self.truth(pair)?;
        if truth.size != image.size() {
            return Err(Error::LabelSize {
                labels: pair.labels.display().to_string(),
                got: truth.size,
                image: pair.image.display().to_string(),
                expected: image.size(),
            });
        }
        Ok(Labelled { name: pair.name.clone(), path: pair.image.clone(), image, truth })
    }

    /// Reads labels alone.
    ///
    /// # Errors
    /// If the file cannot be read, or holds a number that the data set does not have.
    pub fn truth(&self, pair: &Pair) -> Result<SegMap> {
        if self.layout.in_color() {
            pixels::of_colors(&pair.labels, &self.classes, &self.limits)
        } else {
            pixels::of_numbers(&pair.labels, &self.classes, &self.limits)
        }
    }

    /// The `count` frames of the video before a labelled one, their numbers `step` apart, the nearest last; `None` if one
    /// of them is not there.
    ///
    /// They are looked for in `frames`, or where the data set keeps them: [`LabelledSet::video_of`].
    ///
    /// # Errors
    /// If the folder cannot be listed.
    pub fn frames_before(
        &self,
        pair: &Pair,
        frames: Option<&Path>,
        count: usize,
        step: usize,
    ) -> Result<Option<Vec<PathBuf>>> {
        let folder = frames.map_or_else(|| self.video_of(pair), Path::to_owned);
        snippet::frames_before(&pair.image, &folder, count, step)
    }

    /// The folder with the video that a labelled picture is a frame of: Cityscapes' `leftImg8bit_sequence`, of the others
    /// the labelled pictures themselves.
    pub fn video_of(&self, pair: &Pair) -> PathBuf {
        self.layout.video_of(&pair.image)
    }

    /// Reads a frame of a video within the set's limits.
    ///
    /// # Errors
    /// If it cannot be read.
    pub fn read_frame(&self, frame: &Path) -> Result<Image> {
        read_with(frame, &self.limits)
    }

    /// All pictures with their labels, each read when it is asked for. One that cannot be read is an `Err`, and the
    /// next ones follow.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = Result<Labelled>> + '_ {
        self.pairs.iter().map(|pair| self.read(pair))
    }
}
