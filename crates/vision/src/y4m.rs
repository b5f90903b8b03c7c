//! Y4M (`YUV4MPEG2`): uncompressed video, a line of text and then planes.
//!
//! Y′CbCr becomes R′G′B′ by BT.601, with the limited range (16–235, 16–240) unless the stream carries
//! `XCOLORRANGE=FULL`:
//!
//! ```text
//! R = 255/219 (Y−16) + 255/112 · (1−Kr) (Cr−128)
//! B = 255/219 (Y−16) + 255/112 · (1−Kb) (Cb−128)
//! G = 255/219 (Y−16) − 255/112 · [Kr (1−Kr) (Cr−128) + Kb (1−Kb) (Cb−128)] / Kg
//! ```
//!
//! with Kr = 0.299, Kb = 0.114, Kg = 0.587, rounded to nearest and clamped. A chroma sample holds for
//! its whole block of pixels; the sitings (`420jpeg`, `420mpeg2`, `420paldv`) make no difference.

use std::io::{BufRead, ErrorKind, Read};
use std::time::Duration;

use zoo_core::{FrameSize, Image};

use crate::{Error, Limits, Result};

/// What every stream starts with.
pub(crate) const MAGIC: &[u8] = b"YUV4MPEG2";
/// Longest header line taken; real ones have about 60 bytes.
const MAX_HEADER: u64 = 1024;
/// The kinds of samples that are read, with the pixels that share one chroma sample: (columns, rows).
const SAMPLINGS: [(&str, Option<(usize, usize)>); 8] = [
    ("420", Some((2, 2))),
    ("420jpeg", Some((2, 2))),
    ("420mpeg2", Some((2, 2))),
    ("420paldv", Some((2, 2))),
    ("411", Some((4, 1))),
    ("422", Some((2, 1))),
    ("444", Some((1, 1))),
    ("mono", None),
];

/// Frames a second, as the exact ratio that a file states.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FrameRate {
    /// Frames …
    pub numerator: u32,
    /// … in this many seconds.
    pub denominator: u32,
}

impl FrameRate {
    /// As a number.
    pub fn as_f64(self) -> f64 {
        f64::from(self.numerator) / f64::from(self.denominator)
    }

    /// When a frame is due.
    pub(crate) fn timestamp(self, index: usize) -> Option<Duration> {
        let nanos = (index as u128 * u128::from(self.denominator) * 1_000_000_000)
            .checked_div(u128::from(self.numerator))?;
        u64::try_from(nanos).ok().map(Duration::from_nanos)
    }
}

/// Reads frames of a Y4M stream one after the other.
pub(crate) struct Y4mReader<R> {
    stream: R,
    name: String,
    size: FrameSize,
    sampling: Option<(usize, usize)>,
    rate: Option<FrameRate>,
    conversion: Conversion,
    index: usize,
    planes: Vec<u8>,
}

impl<R: BufRead> Y4mReader<R> {
    pub(crate) fn new(mut stream: R, name: &str, limits: &Limits) -> Result<Self> {
        let wrong = |reason: String| Error::Y4m { name: name.to_owned(), reason };
        let line = header_line(&mut stream, name)?.unwrap_or_default();
        let Some(parameters) = line.strip_prefix("YUV4MPEG2") else {
            return Err(wrong("expected a first line that starts with YUV4MPEG2".to_owned()));
        };

        let (mut width, mut height, mut rate) = (0, 0, None);
        let mut colour = "420";
        let mut full_range = false;
        for parameter in parameters.split_ascii_whitespace() {
            match parameter.split_at_checked(1) {
                Some(("W", value)) => width = value.parse().unwrap_or(0),
                Some(("H", value)) => height = value.parse().unwrap_or(0),
                Some(("F", value)) => rate = parse_rate(value),
                Some(("C", value)) => colour = value,
                Some(("I", value)) if !matches!(value, "p" | "?") => {
                    tracing::warn!("{name}: interlaced (I{value}); the fields are left woven");
                }
                Some(("X", "COLORRANGE=FULL")) => full_range = true,
                _ => {}
            }
        }
        if width == 0 || height == 0 {
            return Err(wrong(format!("expected a width and a height in its header, got `{line}`")));
        }
        let size = FrameSize::new(height, width);
        limits.check(name, size)?;
        let Some((_, sampling)) = SAMPLINGS.into_iter().find(|(kind, _)| *kind == colour) else {
            return Err(wrong(format!(
                "expected 8-bit samples of kind {}, got C{colour}; convert it with \
                 `ffmpeg -i IN -pix_fmt yuv420p OUT.y4m`",
                SAMPLINGS.map(|(kind, _)| kind).join(", ")
            )));
        };
        let bytes = size.area() + 2 * sampling.map_or(0, |block| chroma_size(size, block).area());
        if bytes as u64 > limits.max_bytes {
            return Err(limits.too_much(name, format!("{bytes} for a frame")));
        }
        Ok(Self {
            stream,
            name: name.to_owned(),
            size,
            sampling,
            rate,
            conversion: Conversion::new(full_range),
            index: 0,
            planes: vec![0; bytes],
        })
    }

    pub(crate) fn size(&self) -> FrameSize {
        self.size
    }

    pub(crate) fn rate(&self) -> Option<FrameRate> {
        self.rate
    }

    /// The next frame, or `None` after the last.
    pub(crate) fn read_frame(&mut self) -> Result<Option<Image>> {
        let wrong = |reason: String| Error::Y4m { name: self.name.clone(), reason };
        let Some(line) = header_line(&mut self.stream, &self.name)? else { return Ok(None) };
        if line != "FRAME" && !line.starts_with("FRAME ") {
            let got: String = line.chars().take(20).collect();
            return Err(wrong(format!("expected FRAME before frame {}, got `{got}`", self.index)));
        }
        if let Err(source) = self.stream.read_exact(&mut self.planes) {
            return Err(match source.kind() {
                ErrorKind::UnexpectedEof => wrong(format!(
                    "frame {} is cut short, expected {} bytes; copy the file again",
                    self.index,
                    self.planes.len()
                )),
                _ => Error::Read { name: self.name.clone(), source },
            });
        }
        self.index += 1;
        Ok(Some(Image::new(self.size, self.to_rgb())?))
    }

    fn to_rgb(&self) -> Vec<u8> {
        let FrameSize { width, .. } = self.size;
        let mut rgb = Vec::with_capacity(3 * self.size.area());
        let (luma, chroma) = self.planes.split_at(self.size.area());
        let Some((block_width, block_height)) = self.sampling else {
            for &y in luma {
                rgb.extend(self.conversion.rgb(y, 128, 128));
            }
            return rgb;
        };
        let chroma_width = width.div_ceil(block_width);
        let (blue, red) = chroma.split_at(chroma.len() / 2);
        for (row, lumas) in luma.chunks_exact(width).enumerate() {
            let start = row / block_height * chroma_width;
            let chromas = blue[start..].iter().zip(&red[start..]);
            for (block, (&cb, &cr)) in lumas.chunks(block_width).zip(chromas) {
                for &y in block {
                    rgb.extend(self.conversion.rgb(y, cb, cr));
                }
            }
        }
        rgb
    }
}

fn chroma_size(size: FrameSize, (columns, rows): (usize, usize)) -> FrameSize {
    FrameSize::new(size.height.div_ceil(rows), size.width.div_ceil(columns))
}

fn parse_rate(text: &str) -> Option<FrameRate> {
    let (numerator, denominator) = text.split_once(':')?;
    let rate = FrameRate { numerator: numerator.parse().ok()?, denominator: denominator.parse().ok()? };
    (rate.numerator > 0 && rate.denominator > 0).then_some(rate)
}

/// One line without its end; `None` at the end of the stream.
fn header_line(stream: &mut impl BufRead, name: &str) -> Result<Option<String>> {
    let mut line = Vec::new();
    let read = stream.take(MAX_HEADER).read_until(b'\n', &mut line);
    read.map_err(|source| Error::Read { name: name.to_owned(), source })?;
    if line.is_empty() {
        return Ok(None);
    }
    if line.pop() != Some(b'\n') {
        let reason = format!("expected a header line of at most {MAX_HEADER} bytes");
        return Err(Error::Y4m { name: name.to_owned(), reason });
    }
    Ok(Some(String::from_utf8_lossy(&line).into_owned()))
}

/// The products of the conversion for each sample value, in units of 2⁻⁵⁰: precise enough that every
/// one of the 2²⁴ colours comes out as with exact arithmetic, halves rounded up.
struct Conversion {
    luma: [i64; 256],
    red_of_cr: [i64; 256],
    green_of_cr: [i64; 256],
    green_of_cb: [i64; 256],
    blue_of_cb: [i64; 256],
}

const FRACTION_BITS: u32 = 50;
/// One half, and a little more than the tables' own rounding: no value but an exact half is that close.
const HALF: i64 = (1 << (FRACTION_BITS - 1)) + 2;
/// BT.601's weights of red, green and blue in luma, in thousandths.
const KR: i128 = 299;
const KG: i128 = 587;
const KB: i128 = 114;

impl Conversion {
    fn new(full_range: bool) -> Self {
        let (black, luma_range, chroma_range) = if full_range { (0, 255, 255) } else { (16, 219, 224) };
        let table = |zero: i128, numerator: i128, denominator: i128| {
            std::array::from_fn(|sample| {
                let product = ((sample as i128 - zero) * numerator) << FRACTION_BITS;
                ((product + denominator / 2).div_euclid(denominator)) as i64
            })
        };
        let (cr, cb) = (2 * 255 * (1000 - KR), 2 * 255 * (1000 - KB));
        Self {
            luma: table(black, 255, luma_range),
            red_of_cr: table(128, cr, chroma_range * 1000),
            green_of_cr: table(128, -cr * KR, chroma_range * 1000 * KG),
            green_of_cb: table(128, -cb * KB, chroma_range * 1000 * KG),
            blue_of_cb: table(128, cb, chroma_range * 1000),
        }
    }

    fn rgb(&self, y: u8, cb: u8, cr: u8) -> [u8; 3] {
        let (y, cb, cr) = (self.luma[usize::from(y)], usize::from(cb), usize::from(cr));
        [y + self.red_of_cr[cr], y + self.green_of_cr[cr] + self.green_of_cb[cb], y + self.blue_of_cb[cb]]
            .map(|value| ((value + HALF) >> FRACTION_BITS).clamp(0, 255) as u8)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn known_colours_convert_exactly() {
        let limited = Conversion::new(false);
        for (name, [y, cb, cr], expected) in [
            ("black", [16, 128, 128], [0, 0, 0]),
            ("white", [235, 128, 128], [255, 255, 255]),
            ("gray", [126, 128, 128], [128, 128, 128]),
            ("red", [81, 90, 240], [254, 0, 0]),
            ("green", [145, 54, 34], [0, 255, 1]),
            ("blue", [41, 240, 110], [0, 0, 255]),
            ("below black", [0, 128, 128], [0, 0, 0]),
            ("above white", [255, 128, 128], [255, 255, 255]),
        ] {
            assert_eq!(limited.rgb(y, cb, cr), expected, "{name}");
        }
        let full = Conversion::new(true);
        assert_eq!(full.rgb(0, 128, 128), [0; 3]);
        assert_eq!(full.rgb(200, 128, 128), [200; 3]);
        assert_eq!(full.rgb(76, 85, 255), [254, 0, 0]);
    }

    #[test]
    fn every_colour_is_the_rounded_real_value() {
        for full_range in [false, true] {
            let conversion = Conversion::new(full_range);
            let (black, luma, chroma) = if full_range { (0, 255, 255) } else { (16, 219, 224) };
            // Everything times this is a whole number.
            let unit: i64 = luma * chroma * 587_000_000;
            let round = |value: i64| (value + unit / 2).div_euclid(unit).clamp(0, 255) as u8;
            for cb in 0..=255u8 {
                for cr in 0..=255u8 {
                    let scaled = |sample: u8| (i64::from(sample) - 128) * 255 * luma;
                    let red = 1402 * 587_000 * scaled(cr);
                    let green = -(299 * 1402 * scaled(cr) + 114 * 1772 * scaled(cb)) * 1000;
                    let blue = 1772 * 587_000 * scaled(cb);
                    for y in 0..=255u8 {
                        let gray = (i64::from(y) - black) * 255 * chroma * 587_000_000;
                        let expected = [round(gray + red), round(gray + green), round(gray + blue)];
                        assert_eq!(conversion.rgb(y, cb, cr), expected, "Y {y} Cb {cb} Cr {cr}");
                    }
                }
            }
        }
    }
}
