//! Names that come from outside and become parts of paths.

use std::borrow::Cow;

use crate::{Error, Result};

/// Accepts only names that stay inside the folder they are joined to, on every system: the client
/// joins them unchecked.
pub(crate) fn check_file_name(name: &str) -> Result<()> {
    let bytes = name.as_bytes();
    let reason = if name.is_empty() {
        "is empty"
    } else if name.starts_with('/') {
        "starts at the root"
    } else if name.contains('\\') {
        "has a backslash in it"
    } else if bytes.get(1) == Some(&b':') && bytes.first().is_some_and(u8::is_ascii_alphabetic) {
        "starts with a drive"
    } else if name.chars().any(char::is_control) {
        "has a control character in it"
    } else {
        match name.split('/').find_map(|part| match part {
            "" => Some("has an empty part"),
            "." | ".." => Some("has a part that is only dots"),
            _ => None,
        }) {
            Some(reason) => reason,
            None => return Ok(()),
        }
    };
    Err(Error::FileName { name: name.to_owned(), reason })
}

/// Splits `owner/name`.
pub(crate) fn split_repo(repo: &str) -> Result<(&str, &str)> {
    let plain = |part: &str| {
        !part.is_empty()
            && !part.starts_with('.')
            && part.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.'))
    };
    repo.split_once('/').filter(|(owner, name)| plain(owner) && plain(name)).ok_or_else(|| Error::Name {
        text: repo.to_owned(),
        expected: "a repository (OWNER/NAME, of letters, digits, '-', '_' and '.')",
    })
}

/// Whether this is a full commit: 40 hexadecimal digits.
pub(crate) fn is_commit(revision: &str) -> bool {
    revision.len() == 40 && revision.bytes().all(|b| b.is_ascii_hexdigit())
}

/// Text out of a file, fit for a message: a terminal would obey control characters, and a name can be
/// as long as the file.
pub(crate) fn printable(text: &str) -> Cow<'_, str> {
    const LONGEST: usize = 200;
    if text.len() <= LONGEST && !text.chars().any(char::is_control) {
        return Cow::Borrowed(text);
    }
    let shown =
        text.chars().take(LONGEST).map(|c| if c.is_control() { char::REPLACEMENT_CHARACTER } else { c });
    Cow::Owned(if text.chars().nth(LONGEST).is_some() {
        shown.chain(['…']).collect()
    } else {
        shown.collect()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_could_leave_their_folder_are_refused() {
        for (name, reason) in [
            ("", "is empty"),
            ("/etc/passwd", "starts at the root"),
            ("../up", "only dots"),
            ("a/../../up", "only dots"),
            ("a/./b", "only dots"),
            ("..", "only dots"),
            ("a//b", "empty part"),
            ("a/", "empty part"),
            ("a\\..\\b", "backslash"),
            ("C:/windows", "drive"),
            ("c:x", "drive"),
            ("a\0b", "control character"),
            ("a\nb", "control character"),
        ] {
            let error = check_file_name(name).unwrap_err().to_string();
            assert!(error.contains(reason), "{name:?}: {error}");
            assert!(error.contains("expected a relative path"), "{name:?}: {error}");
        }
        for name in ["model.safetensors", "a/b/c.bin", "..a", "a..b", "...", "ümlaut file.pt"] {
            assert!(check_file_name(name).is_ok(), "{name:?}");
        }
    }

    #[test]
    fn a_repository_is_an_owner_and_a_name() {
        assert_eq!(split_repo("timm/mobilenet-v2.1").unwrap(), ("timm", "mobilenet-v2.1"));
        for repo in ["", "timm", "timm/", "/x", "a/b/c", "a/..", "../b", "a b/c", "a/b?x"] {
            let error = split_repo(repo).unwrap_err().to_string();
            assert!(error.contains("does not name a repository (OWNER/NAME"), "{repo}: {error}");
        }
    }

    #[test]
    fn text_out_of_files_cannot_drive_a_terminal() {
        assert_eq!(printable("head.weight"), "head.weight");
        assert_eq!(printable("a\u{1b}[2Jb"), "a\u{fffd}[2Jb");
        assert_eq!(printable(&"é".repeat(1000)).chars().count(), 201);
    }
}
