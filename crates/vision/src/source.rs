//! Where frames come from: a file, a folder, a pattern, standard input, a clip.

use std::fs::File;
use std::io::{BufReader, Cursor, Read, Seek};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use zoo_core::{FrameSize, Image};

use crate::animation;
use crate::decode::read_all;
use crate::natural::natural_order;
use crate::y4m::{self, FrameRate, Y4mReader};
use crate::{Error, Limits, Result, decode, read_with};

/// Endings by which a folder's pictures are told from its other files. What a file really holds is
/// read from its content.
const PICTURES: [&str; 13] =
    ["png", "apng", "jpg", "jpeg", "webp", "bmp", "gif", "pbm", "pgm", "ppm", "pnm", "tif", "tiff"];
/// Endings of videos that are left to ffmpeg.
const VIDEOS: [&str; 12] =
    ["mp4", "m4v", "mov", "mkv", "webm", "avi", "mpg", "mpeg", "ts", "wmv", "flv", "ogv"];

/// One picture, or one frame of a clip.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Frame {
    /// Position in its source, from 0; a picture that could not be read keeps its number.
    pub index: usize,
    /// What results are called: the file's name without its ending (`street`), for a frame of a clip
    /// with its number (`drive_00012`).
    pub name: String,
    /// The file that it came from; `None` for standard input.
    pub path: Option<PathBuf>,
    /// The pixels.
    pub image: Image,
    /// When it is shown, from the start of its clip; `None` for a single picture.
    pub timestamp: Option<Duration>,
}

/// A place that frames come from.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Source {
    /// A picture, an animation or a video.
    File(PathBuf),
    /// The pictures of a folder, in natural order (`frame2` before `frame10`); hidden files, files
    /// with another ending and folders inside are passed over.
    Folder(PathBuf),
    /// The files that match a pattern, in natural order; hidden files and folders are passed over.
    Glob(String),
    /// One picture or animation, or a Y4M stream, from standard input.
    Stdin,
}

impl Source {
    /// Understands `photo.jpg`, `frames/`, `frames/*.png`, `clip.y4m`, `anim.gif`, `-` (standard
    /// input), and with feature `ffmpeg` any other video.
    ///
    /// # Errors
    /// If there is no such file or the pattern is malformed.
    pub fn parse(text: &str) -> Result<Self> {
        if text == "-" {
            return Ok(Self::Stdin);
        }
        let path = Path::new(text);
        match path.metadata() {
            Ok(metadata) if metadata.is_dir() => Ok(Self::Folder(path.to_owned())),
            Ok(_) => Ok(Self::File(path.to_owned())),
            Err(_) if text.contains(['*', '?', '[']) => glob::Pattern::new(text)
                .map(|_| Self::Glob(text.to_owned()))
                .map_err(|source| Error::Pattern { pattern: text.to_owned(), source }),
            Err(source) => Err(Error::Read { name: text.to_owned(), source }),
        }
    }

    /// The files that frames will be read from, in order; none for standard input.
    ///
    /// # Errors
    /// If a folder cannot be listed, or a folder or pattern holds no picture.
    pub fn files(&self) -> Result<Vec<PathBuf>> {
        let mut files: Vec<PathBuf> = match self {
            Self::Stdin => return Ok(Vec::new()),
            Self::File(path) => return Ok(vec![path.clone()]),
            Self::Folder(folder) => pictures_in(folder)?,
            Self::Glob(pattern) => glob::glob(pattern)
                .map_err(|source| Error::Pattern { pattern: pattern.clone(), source })?
                .map(|entry| {
                    entry.map_err(|error| Error::Read {
                        name: error.path().display().to_string(),
                        source: error.into(),
                    })
                })
                .collect::<Result<_>>()?,
        };
        files.retain(|path| is_visible_file(path));
        files.sort_by(|a, b| natural_order(&a.to_string_lossy(), &b.to_string_lossy()));
        if files.is_empty() {
            return Err(Error::NoPictures { name: self.to_string(), expected: PICTURES.join(", ") });
        }
        Ok(files)
    }

    /// The frames, with the default [`Limits`].
    ///
    /// # Errors
    /// As [`Source::frames_with`].
    pub fn frames(&self) -> Result<Frames> {
        self.frames_with(&Limits::default())
    }

    /// The frames, one after the other; each is decoded when it is asked for. A picture of a folder or
    /// pattern that cannot be read is an `Err` item, and the next ones follow; a clip ends with its
    /// first broken frame. In a folder or pattern an animation counts as its first frame.
    ///
    /// # Errors
    /// If the folder or pattern holds no picture, or a clip cannot be opened.
    pub fn frames_with(&self, limits: &Limits) -> Result<Frames> {
        match self {
            Self::File(path) => open_file(path, limits),
            Self::Folder(_) | Self::Glob(_) => Ok(Frames::stills(self.files()?, limits)),
            Self::Stdin => Frames::from_reader(std::io::stdin(), "stdin", limits),
        }
    }
}

impl std::fmt::Display for Source {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::File(path) | Self::Folder(path) => write!(f, "{}", path.display()),
            Self::Glob(pattern) => f.write_str(pattern),
            Self::Stdin => f.write_str("stdin"),
        }
    }
}

/// An iterator over the frames of a [`Source`].
pub struct Frames {
    items: Box<dyn Iterator<Item = Result<Frame>>>,
    count: Option<usize>,
    size: Option<FrameSize>,
    rate: Option<FrameRate>,
}

impl std::fmt::Debug for Frames {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Frames")
            .field("count", &self.count)
            .field("size", &self.size)
            .field("rate", &self.rate)
            .finish_non_exhaustive()
    }
}

impl Frames {
    /// Frames in all, where that is known before reading them: not for Y4M, WebP and other video.
    pub fn count_hint(&self) -> Option<usize> {
        self.count
    }

    /// The size that all frames have, where that is known before the first: for clips.
    pub fn size(&self) -> Option<FrameSize> {
        self.size
    }

    /// The frame rate that a Y4M stream or a video states.
    pub fn rate(&self) -> Option<FrameRate> {
        self.rate
    }

    /// One picture or animation, or a Y4M stream, from any reader; `name` names the frames. Y4M is read frame by
    /// frame, however long; anything else is held in memory, once, up to [`Limits::max_bytes`].
    ///
    /// # Errors
    /// If the stream cannot be read, is larger than the limits, or its header is wrong.
    pub fn from_reader(mut reader: impl Read + 'static, name: &str, limits: &Limits) -> Result<Self> {
        let mut start = Vec::new();
        let failed = |source| Error::Read { name: name.to_owned(), source };
        reader.by_ref().take(y4m::MAGIC.len() as u64).read_to_end(&mut start).map_err(failed)?;
        let origin = Origin { stem: name.to_owned(), path: None };
        let is_y4m = start == y4m::MAGIC;
        let stream = Cursor::new(start).chain(reader);
        if is_y4m {
            return Self::y4m(Y4mReader::new(BufReader::new(stream), name, limits)?, origin);
        }
        let bytes = Shared(Arc::new(read_all(stream, name, limits)?));
        if let Some(clip) = animation::open(Cursor::new(bytes.clone()), name, limits)? {
            return Ok(Self::animation(clip, origin));
        }
        let image = decode(bytes.as_ref(), name, limits)?;
        Ok(Self::of(std::iter::once(Ok(origin.still(0, image))), Some(1)))
    }

    fn of(items: impl Iterator<Item = Result<Frame>> + 'static, count: Option<usize>) -> Self {
        Self { items: Box::new(items), count, size: None, rate: None }
    }

    fn stills(files: Vec<PathBuf>, limits: &Limits) -> Self {
        let (count, limits) = (files.len(), *limits);
        let items = files.into_iter().enumerate().map(move |(index, path)| {
            let image = read_with(&path, &limits)?;
            Ok(Origin::of(&path).still(index, image))
        });
        Self::of(items, Some(count))
    }

    fn animation(clip: animation::Clip, origin: Origin) -> Self {
        let (count, size) = (clip.count, clip.size);
        let items = clip.frames.enumerate().map(move |(index, frame)| {
            let (image, timestamp) = frame?;
            Ok(origin.in_clip(index, image, Some(timestamp)))
        });
        Self { size: Some(size), ..Self::of(items, count) }
    }

    fn y4m(mut reader: Y4mReader<impl std::io::BufRead + 'static>, origin: Origin) -> Result<Self> {
        let (size, rate) = (reader.size(), reader.rate());
        let items = y4m_frames(move || reader.read_frame(), origin, rate);
        Ok(Self { size: Some(size), rate, ..Self::of(items, None) })
    }

    #[cfg(feature = "ffmpeg")]
    fn ffmpeg(mut video: crate::ffmpeg::Video, origin: Origin) -> Self {
        let (size, rate) = (video.size(), video.rate());
        let items = y4m_frames(move || video.read_frame(), origin, rate);
        Self { size: Some(size), rate, ..Self::of(items, None) }
    }
}

impl Iterator for Frames {
    type Item = Result<Frame>;

    fn next(&mut self) -> Option<Self::Item> {
        self.items.next()
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        self.items.size_hint()
    }
}

/// The bytes of a stream that cannot go back, for whoever turns out to read them.
#[derive(Clone)]
struct Shared(Arc<Vec<u8>>);

impl AsRef<[u8]> for Shared {
    fn as_ref(&self) -> &[u8] {
        &self.0
    }
}

/// Numbers and times frames until the first that is missing or broken.
fn y4m_frames(
    mut read: impl FnMut() -> Result<Option<Image>>,
    origin: Origin,
    rate: Option<FrameRate>,
) -> impl Iterator<Item = Result<Frame>> {
    let mut broken = false;
    let images = std::iter::from_fn(move || {
        let image = if broken { None } else { read().transpose() };
        broken = matches!(image, Some(Err(_)));
        image
    });
    images.enumerate().map(move |(index, image)| {
        let timestamp = rate.and_then(|rate| rate.timestamp(index));
        Ok(origin.in_clip(index, image?, timestamp))
    })
}

/// What frames of one file have in common.
struct Origin {
    stem: String,
    path: Option<PathBuf>,
}

impl Origin {
    fn of(path: &Path) -> Self {
        let stem = path.file_stem().unwrap_or(path.as_os_str()).to_string_lossy().into_owned();
        Self { stem, path: Some(path.to_owned()) }
    }

    fn still(self, index: usize, image: Image) -> Frame {
        Frame { index, name: self.stem, path: self.path, image, timestamp: None }
    }

    fn in_clip(&self, index: usize, image: Image, timestamp: Option<Duration>) -> Frame {
        Frame { index, name: format!("{}_{index:05}", self.stem), path: self.path.clone(), image, timestamp }
    }
}

fn open_file(path: &Path, limits: &Limits) -> Result<Frames> {
    let name = path.display().to_string();
    let failed = |source| Error::Read { name: name.clone(), source };
    let mut file = File::open(path).map_err(failed)?;
    let mut start = Vec::new();
    file.by_ref().take(16).read_to_end(&mut start).map_err(failed)?;
    file.rewind().map_err(failed)?;

    let stream = BufReader::new(file);
    if start.starts_with(y4m::MAGIC) {
        return Frames::y4m(Y4mReader::new(stream, &name, limits)?, Origin::of(path));
    }
    if image::guess_format(&start).is_err() && ends_in(path, &VIDEOS) {
        return open_video(path, &name, limits);
    }
    match animation::open(stream, &name, limits)? {
        Some(clip) => Ok(Frames::animation(clip, Origin::of(path))),
        None => Ok(Frames::stills(vec![path.to_owned()], limits)),
    }
}

#[cfg(feature = "ffmpeg")]
fn open_video(path: &Path, name: &str, limits: &Limits) -> Result<Frames> {
    let video = crate::ffmpeg::Video::open("ffmpeg", path, name, limits)?;
    Ok(Frames::ffmpeg(video, Origin::of(path)))
}

#[cfg(not(feature = "ffmpeg"))]
fn open_video(_: &Path, name: &str, _: &Limits) -> Result<Frames> {
    Err(Error::FfmpegFeature { name: name.to_owned() })
}

/// The pictures of a folder, by their endings; hidden files and folders are passed over.
pub(crate) fn pictures_in(folder: &Path) -> Result<Vec<PathBuf>> {
    let failed = |source| Error::Read { name: folder.display().to_string(), source };
    let entries = folder.read_dir().map_err(failed)?;
    let paths: std::io::Result<Vec<_>> = entries.map(|entry| Ok(entry?.path())).collect();
    let is_picture = |path: &PathBuf| ends_in(path, &PICTURES) && is_visible_file(path);
    Ok(paths.map_err(failed)?.into_iter().filter(is_picture).collect())
}

fn is_visible_file(path: &Path) -> bool {
    let is_hidden = path.file_name().is_some_and(|name| name.to_string_lossy().starts_with('.'));
    !is_hidden && !path.is_dir()
}

fn ends_in(path: &Path, endings: &[&str]) -> bool {
    path.extension().is_some_and(|found| endings.iter().any(|known| found.eq_ignore_ascii_case(known)))
}
