//! Boxes as text: JSON lines, COCO's results format, CSV.

use std::path::Path;

use serde::Serialize;
use zoo_core::{Detection, Detections};

use super::AtomicFile;
use crate::source::Frame;
use crate::{Error, Result};

/// What was found in one frame, as one JSON object.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Record<'a> {
    /// [`Frame::index`].
    pub frame: usize,
    /// [`Frame::name`].
    pub name: &'a str,
    /// [`Frame::path`].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub path: Option<&'a Path>,
    /// [`Frame::timestamp`] in seconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub seconds: Option<f64>,
    /// Columns of the frame.
    pub width: usize,
    /// Rows of the frame.
    pub height: usize,
    /// The objects, best first.
    pub detections: &'a [Detection],
}

impl<'a> Record<'a> {
    /// The record of a frame.
    pub fn new(frame: &'a Frame, found: &'a Detections) -> Self {
        Self {
            frame: frame.index,
            name: &frame.name,
            path: frame.path.as_deref(),
            seconds: frame.timestamp.map(|at| at.as_secs_f64()),
            width: found.size.width,
            height: found.size.height,
            detections: &found.items,
        }
    }
}

/// A file with one JSON value a line.
pub struct JsonLines {
    file: AtomicFile,
}

impl JsonLines {
    /// Starts the file.
    ///
    /// # Errors
    /// If it cannot be created.
    pub fn create(path: impl AsRef<Path>) -> Result<Self> {
        Ok(Self { file: AtomicFile::create(path.as_ref())? })
    }

    /// Appends a line, most often a [`Record`].
    ///
    /// # Errors
    /// If the record has no JSON form or writing fails.
    pub fn push(&mut self, record: &impl Serialize) -> Result<()> {
        let mut line = json(&self.file, record)?;
        line.push(b'\n');
        self.file.write_all(&line)
    }

    /// Completes the file.
    ///
    /// # Errors
    /// If writing fails.
    pub fn finish(self) -> Result<()> {
        self.file.finish()
    }
}

/// A file in COCO's results format: a list of `{image_id, category_id, bbox: [x, y, w, h], score}`.
pub struct CocoResults {
    file: AtomicFile,
    is_empty: bool,
}

#[derive(Serialize)]
struct CocoResult {
    image_id: u64,
    category_id: usize,
    bbox: [f32; 4],
    score: f32,
}

impl CocoResults {
    /// Starts the file.
    ///
    /// # Errors
    /// If it cannot be created.
    pub fn create(path: impl AsRef<Path>) -> Result<Self> {
        let mut file = AtomicFile::create(path.as_ref())?;
        file.write_all(b"[")?;
        Ok(Self { file, is_empty: true })
    }

    /// Appends the boxes of the image that the data set numbers `image_id`. Class numbers are written
    /// as category ids.
    ///
    /// # Errors
    /// If writing fails.
    pub fn push(&mut self, image_id: u64, found: &Detections) -> Result<()> {
        for Detection { class_id, score, bbox, .. } in &found.items {
            let result = CocoResult {
                image_id,
                category_id: *class_id,
                bbox: [bbox.x0, bbox.y0, bbox.width(), bbox.height()],
                score: *score,
            };
            let object = json(&self.file, &result)?;
            self.file.write_all(if self.is_empty { b"\n" } else { b",\n" })?;
            self.file.write_all(&object)?;
            self.is_empty = false;
        }
        Ok(())
    }

    /// Completes the file.
    ///
    /// # Errors
    /// If writing fails.
    pub fn finish(mut self) -> Result<()> {
        self.file.write_all(b"\n]\n")?;
        self.file.finish()
    }
}

/// A table with one box a row: `frame,name,class_id,label,score,x0,y0,x1,y1`.
pub struct Csv {
    file: AtomicFile,
}

impl Csv {
    /// Starts the file.
    ///
    /// # Errors
    /// If it cannot be created.
    pub fn create(path: impl AsRef<Path>) -> Result<Self> {
        let mut file = AtomicFile::create(path.as_ref())?;
        file.write_all(b"frame,name,class_id,label,score,x0,y0,x1,y1\r\n")?;
        Ok(Self { file })
    }

    /// Appends a frame's boxes.
    ///
    /// # Errors
    /// If writing fails.
    pub fn push(&mut self, frame: &Frame, found: &Detections) -> Result<()> {
        for Detection { class_id, label, score, bbox } in &found.items {
            let row = format!(
                "{},{},{class_id},{},{score},{},{},{},{}\r\n",
                frame.index,
                quoted(&frame.name),
                quoted(label),
                bbox.x0,
                bbox.y0,
                bbox.x1,
                bbox.y1
            );
            self.file.write_all(row.as_bytes())?;
        }
        Ok(())
    }

    /// Completes the file.
    ///
    /// # Errors
    /// If writing fails.
    pub fn finish(self) -> Result<()> {
        self.file.finish()
    }
}

fn json(file: &AtomicFile, record: &impl Serialize) -> Result<Vec<u8>> {
    serde_json::to_vec(record).map_err(|source| Error::Record { path: file.path().to_owned(), source })
}

/// A CSV field, in quotes where RFC 4180 asks for them.
fn quoted(field: &str) -> String {
    if field.contains([',', '"', '\r', '\n']) {
        format!("\"{}\"", field.replace('"', "\"\""))
    } else {
        field.to_owned()
    }
}
