//! Animated GIF, APNG and WebP: frames composited as a viewer shows them, over white.

use std::io::{BufRead, Seek};
use std::time::Duration;

use image::codecs::{gif::GifDecoder, png::PngDecoder, webp::WebPDecoder};
use image::{AnimationDecoder, ImageDecoder, ImageFormat};
use zoo_core::{FrameSize, Image};

use crate::decode::{decoding_error, over_white};
use crate::{Error, Limits, Result};

/// A clip whose frames are decoded one after the other, each with the time at which it appears.
pub(crate) struct Clip {
    pub size: FrameSize,
    pub count: Option<usize>,
    pub frames: Box<dyn Iterator<Item = Result<(Image, Duration)>>>,
}

/// Opens a stream from its start; `None` if it holds no more than one picture, or nothing that can
/// move (which [`decode`](crate::decode) then judges).
pub(crate) fn open<R>(mut stream: R, name: &str, limits: &Limits) -> Result<Option<Clip>>
where
    R: BufRead + Seek + 'static,
{
    let failed = |source| Error::Read { name: name.to_owned(), source };
    let Ok(format) = image::guess_format(stream.fill_buf().map_err(failed)?) else { return Ok(None) };
    let count = match format {
        ImageFormat::Gif => Some(count_gif_frames(&mut stream)),
        ImageFormat::Png => Some(count_png_frames(&mut stream)),
        ImageFormat::WebP => None,
        _ => return Ok(None),
    };
    if count.is_some_and(|frames| frames < 2) {
        return Ok(None);
    }
    stream.rewind().map_err(failed)?;

    let broken = |source| decoding_error(source, name, format, limits);
    let bounds = limits.for_decoder();
    let (dimensions, frames) = match format {
        ImageFormat::Png => {
            let decoder = PngDecoder::with_limits(stream, bounds).map_err(broken)?;
            let dimensions = decoder.dimensions();
            limits.check(name, frame_size(dimensions))?;
            (dimensions, decoder.apng().map_err(broken)?.into_frames())
        }
        ImageFormat::WebP => {
            // A damaged file is left for `decode` to report.
            let Ok(decoder) = WebPDecoder::new(stream) else { return Ok(None) };
            if !decoder.has_animation() {
                return Ok(None);
            }
            let dimensions = decoder.dimensions();
            limits.check(name, frame_size(dimensions))?;
            (dimensions, decoder.into_frames())
        }
        _ => {
            let mut decoder = GifDecoder::new(stream).map_err(broken)?;
            let dimensions = decoder.dimensions();
            limits.check(name, frame_size(dimensions))?;
            decoder.set_limits(bounds).map_err(broken)?;
            (dimensions, decoder.into_frames())
        }
    };

    let (name, limits) = (name.to_owned(), *limits);
    let mut shown = Duration::ZERO;
    let mut broken = false;
    let images = frames.enumerate().map_while(move |(index, frame)| {
        if broken {
            return None;
        }
        broken = frame.is_err();
        Some(match frame {
            Ok(frame) => {
                let timestamp = shown;
                shown += Duration::from(frame.delay());
                over_white(frame.buffer(), false).map(|image| (image, timestamp))
            }
            Err(source) => Err(decoding_error(source, &format!("frame {index} of {name}"), format, &limits)),
        })
    });
    Ok(Some(Clip { size: frame_size(dimensions), count, frames: Box::new(images) }))
}

fn frame_size((width, height): (u32, u32)) -> FrameSize {
    FrameSize::new(height as usize, width as usize)
}

/// Walks the blocks of a GIF without decompressing them; what follows damage is not counted.
fn count_gif_frames(stream: impl BufRead) -> usize {
    let mut options = gif::DecodeOptions::new();
    options.skip_frame_decoding(true);
    let Ok(mut decoder) = options.read_info(stream) else { return 0 };
    std::iter::from_fn(|| decoder.next_frame_info().ok().flatten().map(|_| ())).count()
}

/// The count that the animation chunk of a PNG states, 0 without one.
fn count_png_frames(stream: impl BufRead + Seek) -> usize {
    let reader = png::Decoder::new(stream).read_info();
    let control = reader.ok().and_then(|reader| reader.info().animation_control);
    control.map_or(0, |control| control.num_frames as usize)
}
