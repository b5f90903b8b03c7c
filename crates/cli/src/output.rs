//! Where answers go: lines on standard output, pictures in a folder, files of records.

use std::collections::BTreeMap;
use std::io::{Write, stdout};
use std::path::{Path, PathBuf};

use anyhow::{Result, bail};
use gsvnet_seg::KeyReason;
use serde::Serialize;
use zoo_core::{BBox, Classification, Detection, Detections, Image, SegMap};
use zoo_vision::draw::{self, Style};
use zoo_vision::write::{CocoResults, Csv, OutputFolder, StillFormat};
use zoo_vision::{Frame, Source, write};

use crate::args::OutputArgs;
use crate::exit::Usage;

/// What a model says of one picture.
pub trait Answer {
    /// As part of a JSON record.
    fn fields(&self) -> Fields<'_>;

    /// Onto the picture it belongs to.
    fn draw(&self, image: &mut Image, style: &Style, how: &Circumstances) -> Result<()>;

    /// What CSV and COCO files hold.
    fn boxes(&self) -> Option<&Detections> {
        None
    }

    /// What is written as a mask.
    fn mask(&self) -> Option<&SegMap> {
        None
    }

    /// The same without what scores less.
    fn above(self, score: f32) -> Self;
}

/// The part of a JSON record that depends on the task.
#[derive(Serialize)]
#[serde(untagged)]
pub enum Fields<'a> {
    Boxes {
        detections: &'a [Detection],
    },
    Mask {
        /// Share of the pixels by class.
        coverage: BTreeMap<&'a str, f32>,
    },
    Classes {
        classes: &'a [Classification],
    },
}

impl Fields<'_> {
    fn lines(&self) -> Vec<String> {
        match self {
            Self::Boxes { detections } => {
                let line = |d: &Detection| format!("  {:<14} {:.2}  {}", d.label, d.score, d.bbox);
                detections.iter().map(line).collect()
            }
            Self::Mask { coverage } => {
                let mut there: Vec<_> = coverage.iter().filter(|(_, share)| **share > 0.0).collect();
                there.sort_by(|a, b| b.1.total_cmp(a.1));
                let line = |(label, share): (&&str, &f32)| format!("  {label:<14} {:.1} %", 100.0 * share);
                there.into_iter().map(line).collect()
            }
            Self::Classes { classes } => {
                let line = |c: &Classification| format!("  {:.3}  {}", c.score, c.label);
                classes.iter().map(line).collect()
            }
        }
    }
}

impl Answer for Detections {
    fn fields(&self) -> Fields<'_> {
        Fields::Boxes { detections: &self.items }
    }

    fn draw(&self, image: &mut Image, style: &Style, _: &Circumstances) -> Result<()> {
        draw::detections(image, self, style);
        Ok(())
    }

    fn boxes(&self) -> Option<&Detections> {
        Some(self)
    }

    fn above(mut self, score: f32) -> Self {
        self.items.retain(|object| object.score >= score);
        self
    }
}

impl Answer for SegMap {
    fn fields(&self) -> Fields<'_> {
        let shares = self.legend.iter().zip(self.coverage());
        Fields::Mask { coverage: shares.map(|(class, found)| (class.name.as_ref(), found.share)).collect() }
    }

    /// With a legend of the classes that cover the picture; of a clip of all, so that frames keep one size.
    fn draw(&self, image: &mut Image, style: &Style, how: &Circumstances) -> Result<()> {
        draw::mask(image, self, style)?;
        let coverage = self.coverage();
        let classes = self.legend.iter().zip(&coverage);
        // The background is not tinted.
        let shown =
            classes.filter(|(class, found)| class.name != "background" && (how.in_clip || found.share > 0.0));
        *image = draw::legend(image, &shown.map(|(class, _)| class.clone()).collect::<Vec<_>>())?;
        Ok(())
    }

    fn mask(&self) -> Option<&SegMap> {
        Some(self)
    }

    fn above(self, _: f32) -> Self {
        self
    }
}

impl Answer for Vec<Classification> {
    fn fields(&self) -> Fields<'_> {
        Fields::Classes { classes: self }
    }

    fn draw(&self, image: &mut Image, _: &Style, _: &Circumstances) -> Result<()> {
        if let Some(best) = self.first() {
            *image = draw::caption(image, &format!("{} {:.2}", best.label, best.score))?;
        }
        Ok(())
    }

    fn above(self, _: f32) -> Self {
        self
    }
}

/// How an answer came about.
#[derive(Debug, Clone, Default)]
pub struct Circumstances {
    /// The part of the picture that the model looked at, in its pixels, if not all.
    pub window: Option<BBox>,
    /// What stands below the picture.
    pub caption: Option<String>,
    /// Whether it is a frame of a clip, whose pictures are to be alike.
    pub in_clip: bool,
    /// Why the frame is a key frame, if it is one.
    pub key: Option<KeyReason>,
    /// Time of the model, in milliseconds.
    pub milliseconds: Option<f64>,
}

#[derive(Serialize)]
struct Record<'a> {
    frame: usize,
    name: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    path: Option<&'a Path>,
    #[serde(skip_serializing_if = "Option::is_none")]
    seconds: Option<f64>,
    width: usize,
    height: usize,
    #[serde(flatten)]
    answer: Fields<'a>,
    #[serde(skip_serializing_if = "Option::is_none")]
    window: Option<BBox>,
    #[serde(skip_serializing_if = "Option::is_none")]
    key: Option<KeyReason>,
    #[serde(skip_serializing_if = "Option::is_none")]
    milliseconds: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    weights: Option<&'a str>,
}

/// All outputs of a run.
pub struct Sink {
    json: bool,
    ids: bool,
    timings: bool,
    score: f32,
    pictures: Option<Pictures>,
    csv: Option<Csv>,
    coco: Option<CocoResults>,
    images: u64,
    /// What has to stand on every result, such as `random weights`.
    caveat: Option<&'static str>,
}

impl Sink {
    /// Opens the outputs; `inputs` are files never to be overwritten.
    pub fn open(args: &OutputArgs, inputs: &[Source], caveat: Option<&'static str>) -> Result<Self> {
        let files = || inputs.iter().flat_map(|source| source.files().unwrap_or_default());
        let is_input = |path: &Path| {
            let mut known = files().filter_map(|file| file.canonicalize().ok());
            path.canonicalize().is_ok_and(|path| known.any(|file| file == path))
        };
        for file in args.csv.iter().chain(&args.coco) {
            if let Some(caveat) = caveat {
                return Err(Usage::error(format_args!(
                    "{} has no place to say '{caveat}': use --json",
                    file.display()
                )));
            }
            if is_input(file) {
                return Err(Usage::error(format_args!(
                    "{} is an input, it would be overwritten: name another output",
                    file.display()
                )));
            }
        }
        Ok(Self {
            json: args.json,
            ids: args.ids,
            timings: args.timings,
            score: args.score,
            pictures: args.pictures().map(|folder| Pictures::create(folder, inputs, args.ids)).transpose()?,
            csv: args.csv.as_ref().map(Csv::create).transpose()?,
            coco: args.coco.as_ref().map(CocoResults::create).transpose()?,
            images: 0,
            caveat,
        })
    }

    /// Writes one answer everywhere.
    pub fn write<A: Answer>(&mut self, frame: &Frame, answer: A, how: &Circumstances) -> Result<()> {
        let answer = answer.above(self.score);
        if self.ids && answer.mask().is_none() {
            bail!(Usage("this model gives no masks, which --ids is for".to_owned()));
        }
        if let Some(pictures) = &mut self.pictures {
            pictures.write(frame, &answer, how, self.caveat)?;
        }
        if let Some(boxes) = answer.boxes() {
            if let Some(csv) = &mut self.csv {
                csv.push(frame, boxes)?;
            }
            if let Some(coco) = &mut self.coco {
                coco.push(frame.name.parse().unwrap_or(self.images), boxes)?;
            }
        } else if self.csv.is_some() || self.coco.is_some() {
            bail!(Usage("this model gives no boxes, which --csv and --coco are for: use --json".to_owned()));
        }
        self.images += 1;
        self.print(frame, &answer, how)
    }

    fn print(&self, frame: &Frame, answer: &impl Answer, how: &Circumstances) -> Result<()> {
        let size = frame.image.size();
        let mut out = stdout().lock();
        if self.json {
            let record = Record {
                frame: frame.index,
                name: &frame.name,
                path: frame.path.as_deref(),
                seconds: frame.timestamp.map(|at| at.as_secs_f64()),
                width: size.width,
                height: size.height,
                answer: answer.fields(),
                window: how.window,
                key: how.key,
                milliseconds: how.milliseconds.filter(|_| self.timings),
                weights: self.caveat,
            };
            writeln!(out, "{}", serde_json::to_string(&record)?)?;
        } else {
            let caveat = self.caveat.map(|caveat| format!("  [{caveat}]")).unwrap_or_default();
            let time = how.milliseconds.filter(|_| self.timings).map(|ms| format!("  {ms:.1} ms"));
            writeln!(out, "{}  {size:#}{}{caveat}", frame.name, time.unwrap_or_default())?;
            let lines = answer.fields().lines();
            for line in &lines {
                writeln!(out, "{line}")?;
            }
            if lines.is_empty() {
                writeln!(out, "  nothing at a score of {} or more", self.score)?;
            }
        }
        Ok(())
    }

    /// Completes the files and says where the pictures are.
    pub fn finish(self) -> Result<Option<PathBuf>> {
        self.csv.map(Csv::finish).transpose()?;
        self.coco.map(CocoResults::finish).transpose()?;
        Ok(self.pictures.filter(|_| self.images > 0).map(|pictures| pictures.at))
    }
}

/// A folder of annotated pictures.
struct Pictures {
    at: PathBuf,
    folder: OutputFolder,
    /// Whether masks hold the data set's own numbers.
    ids: bool,
}

impl Pictures {
    /// One folder serves all inputs of a run, so that no two of them share a name in it.
    fn create(at: &Path, inputs: &[Source], ids: bool) -> Result<Self> {
        Ok(Self { at: at.to_owned(), folder: OutputFolder::create(at, inputs)?, ids })
    }

    fn write(
        &mut self,
        frame: &Frame,
        answer: &impl Answer,
        how: &Circumstances,
        caveat: Option<&str>,
    ) -> Result<()> {
        if let Some(map) = answer.mask() {
            let path = self.folder.path_for(&format!("{}_mask", frame.name), "png");
            match self.ids {
                true => write::mask_of_ids(path, map)?,
                false => write::mask(path, map)?,
            }
        }
        let mut image = frame.image.clone();
        let style = Style::default();
        if let Some(window) = how.window {
            draw::window(&mut image, window, &style);
        }
        answer.draw(&mut image, &style, how)?;
        let caption: Vec<&str> = how.caption.as_deref().into_iter().chain(caveat).collect();
        if !caption.is_empty() {
            image = draw::caption(&image, &caption.join(" · "))?;
        }
        self.folder.image(frame, &image, StillFormat::Png)?;
        Ok(())
    }
}
