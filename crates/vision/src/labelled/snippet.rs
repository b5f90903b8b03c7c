//! The frames of a video before a labelled one.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use crate::Result;
use crate::source::pictures_in;

/// The `count` frames that come before `picture` in the video whose frames are `folder`'s pictures, `step` numbers apart,
/// the nearest last; `None` if one of them is not there.
///
/// A frame belongs to the same video if its name is the same but for its last number, which counts the frames.
///
/// # Errors
/// If the folder cannot be listed; it is not looked at for no frame.
pub(super) fn frames_before(
    picture: &Path,
    folder: &Path,
    count: usize,
    step: usize,
) -> Result<Option<Vec<PathBuf>>> {
    if count == 0 {
        return Ok(Some(Vec::new()));
    }
    let stem = |path: &Path| path.file_stem().and_then(|stem| stem.to_str()).map(str::to_owned);
    let Some((own, number)) = stem(picture).and_then(|own| Some((own.clone(), number_of(&own)?))) else {
        return Ok(None);
    };
    let same = |name: &str| around_last_number(name) == around_last_number(&own);
    let frames: BTreeMap<u64, PathBuf> = pictures_in(folder)?
        .into_iter()
        .filter_map(|path| {
            let name = stem(&path).filter(|name| same(name))?;
            Some((number_of(&name)?, path))
        })
        .collect();
    let before = |i: usize| number.checked_sub((i * step) as u64).and_then(|n| frames.get(&n)).cloned();
    Ok((1..=count).rev().map(before).collect())
}

/// A name's last number.
fn number_of(name: &str) -> Option<u64> {
    let (before, behind) = around_last_number(name);
    name.get(before.len()..name.len() - behind.len())?.parse().ok()
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
        let stepped = |name: &str, count, step| {
            let frames = frames_before(Path::new(name), folder.path(), count, step).unwrap();
            frames.map(|frames| {
                let names = frames.iter().map(|path| path.file_name().unwrap().to_str().unwrap().to_owned());
                names.collect::<Vec<_>>()
            })
        };
        let before = |name: &str, count| stepped(name, count, 1);
        assert_eq!(before("elsewhere/a_11.png", 2), Some(vec!["a_9.png".to_owned(), "a_10.png".to_owned()]));
        assert_eq!(before("a_8.png", 0), Some(vec![]));
        assert_eq!(before("a_8.png", 1), None, "the video begins");
        assert_eq!(before("b_7.png", 1), None, "another video");
        assert_eq!(before("a_13.png", 1), None, "a frame is missing");
        assert_eq!(stepped("a_12.png", 2, 2), Some(vec!["a_8.png".to_owned(), "a_10.png".to_owned()]));
        let nowhere = frames_before(Path::new("a_1.png"), Path::new("nowhere"), 0, 1).unwrap();
        assert_eq!(nowhere, Some(vec![]), "no frame needs no folder");
    }
}
