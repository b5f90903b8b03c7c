//! Running the binaries, and files for them.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use serde_json::Value as Json;
use zoo_core::{FrameSize, Image};

/// What a run came to.
#[derive(Debug)]
pub struct Ran {
    pub code: Option<i32>,
    pub stdout: String,
    pub stderr: String,
}

impl Ran {
    /// Asserts the exit code and gives the rest.
    pub fn expect_code(self, code: i32) -> Self {
        assert_eq!(self.code, Some(code), "{self:#?}");
        self
    }

    /// Standard output as one JSON value.
    pub fn json(&self) -> Json {
        serde_json::from_str(&self.stdout).unwrap_or_else(|error| panic!("{error}: {self:#?}"))
    }

    /// Standard output as JSON lines.
    pub fn json_lines(&self) -> Vec<Json> {
        self.stdout.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }
}

impl From<Output> for Ran {
    fn from(output: Output) -> Self {
        Self {
            code: output.status.code(),
            stdout: String::from_utf8(output.stdout).unwrap(),
            stderr: String::from_utf8(output.stderr).unwrap(),
        }
    }
}

/// A binary with nothing of this machine's settings about weights, in `folder`.
pub fn command(binary: &str, folder: &Path) -> Command {
    let mut command = Command::new(binary);
    command.current_dir(folder).env("HF_HUB_OFFLINE", "1").env("HF_HOME", folder.join("hf"));
    for variable in ["RUST_LOG", "ZOO_WEIGHTS_DIR", "HF_HUB_CACHE"] {
        command.env_remove(variable);
    }
    if cfg!(not(feature = "bundled")) {
        command.env(
            "ZOO_WEIGHTS_DIR",
            Path::new(env!("CARGO_MANIFEST_DIR")).join("../../models/patchwork-det/weights"),
        );
    }
    command
}

/// Runs `zoo` in a folder.
pub fn zoo_in<S: AsRef<std::ffi::OsStr>>(folder: &Path, args: impl IntoIterator<Item = S>) -> Ran {
    command(env!("CARGO_BIN_EXE_zoo"), folder).args(args).output().unwrap().into()
}

/// Runs `zoo` with a command line that has no spaces in its words.
pub fn zoo(folder: &Path, line: &str) -> Ran {
    zoo_in(folder, line.split_whitespace())
}

/// A shipped photograph.
pub fn photo(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("assets/photos").join(name)
}

/// Patchwork's golden files.
pub fn golden(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../models/patchwork-det/tests/golden").join(name)
}

/// A folder of frames: the cat's photograph, panned.
pub fn frames(folder: &Path, count: usize) -> PathBuf {
    let cat = zoo_vision::read(photo("chelsea.png")).unwrap();
    let clip = folder.join("clip");
    std::fs::create_dir_all(&clip).unwrap();
    for t in 0..count {
        let frame = cat.crop(0, 4 * t, FrameSize::new(300, 400)).unwrap();
        zoo_vision::write::image(clip.join(format!("frame{t}.png")), &frame).unwrap();
    }
    clip
}

/// A plain picture in a file.
pub fn plain(path: &Path, size: FrameSize) {
    zoo_vision::write::image(path, &Image::filled(size, [90, 110, 130]).unwrap()).unwrap();
}
