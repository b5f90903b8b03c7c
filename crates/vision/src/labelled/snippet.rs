//! The frames of a video before a labelled one.

use std::path::{Path, PathBuf};

use crate::Result;
use crate::natural::natural_order;
use crate::source::pictures_in;

/// The `count` frames that come before `picture` in the video whose frames are `folder`'s pictures, the nearest last;
/// `None` if there are not so many, or `picture` is not one of them.
///
/// A frame belongs to the same video if its name is the same but for its last number, which counts the frames.
///
/// # Errors
/// If the folder cannot be listed.
pub(super) fn frames_before(picture: &Path, folder: &Path, count: usize) -> Result<Option<Vec<PathBuf>>> {
    let stem = |path: &Path| path.file_stem().and_then(|stem| stem.to_str()).map(str::to_owned);
    let Some(own) = stem(picture) else { return Ok(None) };
    let mut frames: Vec<(String, PathBuf)> = pictures_in(folder)?
        .into_iter()
        .filter_map(|path| Some((stem(&path)?, path)))
        .filter(|(name, _)| around_last_number(name) == around_last_number(&own))
        .collect();
    frames.sort_by(|a, b| natural_order(&a.0, &b.0));
    let Some(at) = frames.iter().position(|(name, _)| *name == own) else { return Ok(None) };
    let first = at.checked_sub(count);
    Ok(first.map(|first| frames[first..at].iter().map(|(_, path)| path.clone()).collect()))
}

/// What stands before and behind a name's last number; one that a letter follows, as in `8bit`, is none.
fn around_last_number(name: &str) -> (&str, &str) {
    let is_digit = |c: char| c.is_ascii_digit();
    let mut end = name.len();
    while let Some(last) = name[..end].rfind(is_digit) {
        let number = name[..=last].trim_end_matches(is_digit).len();
        if !name[last + 1..].starts_with(char::is_alphabetic) {
            return (&name[..number], &name[last + 1..]);
        }
        end = number;
    }
    (name, "")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_of_the_same_video_are_counted_by_their_last_number() {
        assert_eq!(
            around_last_number("frankfurt_000000_000294_leftImg8bit"),
            ("frankfurt_000000_", "_leftImg8bit")
        );
        assert_eq!(around_last_number("0016E5_07959"), ("0016E5_", ""));
        assert_eq!(around_last_number("7"), ("", ""));
        assert_eq!(around_last_number("ümlaut9-é"), ("ümlaut", "-é"));
        assert_eq!(around_last_number("ümlaut9é"), ("ümlaut9é", ""));
        assert_eq!(around_last_number("none"), ("none", ""));

        let folder = tempfile::tempdir().unwrap();
        for name in ["a_8.png", "a_9.png", "a_10.png", "a_11.png", "b_7.png", "a_9.txt"] {
            std::fs::write(folder.path().join(name), "").unwrap();
        }
        let before = |name: &str, count| {
            let frames = frames_before(Path::new(name), folder.path(), count).unwrap();
            frames.map(|frames| {
                let names = frames.iter().map(|path| path.file_name().unwrap().to_str().unwrap().to_owned());
                names.collect::<Vec<_>>()
            })
        };
        assert_eq!(before("elsewhere/a_11.png", 2), Some(vec!["a_9.png".to_owned(), "a_10.png".to_owned()]));
        assert_eq!(before("a_8.png", 0), Some(vec![]));
        assert_eq!(before("a_8.png", 1), None, "the video begins");
        assert_eq!(before("b_7.png", 1), None, "another video");
        assert_eq!(before("a_12.png", 1), None);
    }
}
