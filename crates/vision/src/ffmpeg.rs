//! Any video that an installed `ffmpeg` reads, as a Y4M stream through a pipe.

use std::ffi::OsStr;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, ChildStderr, ChildStdout, Command, Stdio};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use zoo_core::{FrameSize, Image};

use crate::y4m::{FrameRate, Y4mReader};
use crate::{Error, Limits, Result};

/// A running `ffmpeg`; it is ended when this is dropped.
pub(crate) struct Video {
    frames: Y4mReader<BufReader<ChildStdout>>,
    process: Process,
}

impl Video {
    pub(crate) fn open(program: impl AsRef<OsStr>, path: &Path, name: &str, limits: &Limits) -> Result<Self> {
        // `file:` keeps a name with a colon from being taken for a protocol, and the whitelist keeps a
        // playlist from reaching for the network.
        let mut location = std::ffi::OsString::from("file:");
        location.push(path);
        let mut child = Command::new(program)
            .args(["-nostdin", "-hide_banner", "-loglevel", "error", "-protocol_whitelist", "file", "-i"])
            .arg(location)
            .args(["-an", "-sn", "-vf", "scale=out_color_matrix=bt601:out_range=limited"])
            .args(["-pix_fmt", "yuv444p", "-f", "yuv4mpegpipe", "-"])
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .map_err(|source| Error::FfmpegStart { name: name.to_owned(), source })?;
        let (stdout, stderr) = (child.stdout.take(), child.stderr.take());
        let mut process = Process { child, messages: stderr.map(last_line_of), name: name.to_owned() };
        let Some(stdout) = stdout else { return Err(process.failure()) };
        match Y4mReader::new(BufReader::new(stdout), name, limits) {
            Ok(frames) => Ok(Self { frames, process }),
            // A limit is our own complaint; no sense in a header means that ffmpeg has the better reason.
            Err(Error::Y4m { .. }) => Err(process.failure()),
            Err(error) => Err(error),
        }
    }

    pub(crate) fn size(&self) -> FrameSize {
        self.frames.size()
    }

    pub(crate) fn rate(&self) -> Option<FrameRate> {
        self.frames.rate()
    }

    pub(crate) fn read_frame(&mut self) -> Result<Option<Image>> {
        match self.frames.read_frame() {
            Ok(None) if self.process.ended_well() => Ok(None),
            Ok(None) | Err(Error::Y4m { .. }) => Err(self.process.failure()),
            frame => frame,
        }
    }
}

struct Process {
    child: Child,
    messages: Option<JoinHandle<String>>,
    name: String,
}

impl Process {
    /// Whether the program did all that it was asked to; for when its output has ended.
    fn ended_well(&mut self) -> bool {
        self.child.wait().is_ok_and(|status| status.success())
    }

    /// Why there is no more video.
    fn failure(&mut self) -> Error {
        let name = self.name.clone();
        // Time to say what is wrong and to go; then it is made to.
        let patience = Instant::now() + Duration::from_secs(1);
        while Instant::now() < patience && self.child.try_wait().is_ok_and(|status| status.is_none()) {
            std::thread::sleep(Duration::from_millis(5));
        }
        // Fails only if it has ended already.
        let _ = self.child.kill();
        match self.child.wait() {
            Ok(status) => {
                let said = self.messages.take().and_then(|thread| thread.join().ok()).unwrap_or_default();
                let silent = || "it wrote no readable video and gave no reason".to_owned();
                Error::Ffmpeg {
                    name,
                    status,
                    message: Some(said).filter(|s| !s.is_empty()).unwrap_or_else(silent),
                }
            }
            Err(source) => Error::FfmpegStart { name, source },
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // Both fail only if it has ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Reads a pipe to its end, so that the writer never blocks, and keeps the last line that says something.
fn last_line_of(pipe: ChildStderr) -> JoinHandle<String> {
    std::thread::spawn(move || {
        let lines = BufReader::new(pipe).split(b'\n').map_while(|line| line.ok());
        let text = lines.map(|line| String::from_utf8_lossy(&line).trim().to_owned());
        text.filter(|line| !line.is_empty()).last().unwrap_or_default()
    })
}

#[cfg(test)]
#[cfg(unix)]
mod tests {
    use std::os::unix::fs::PermissionsExt;
    use std::path::PathBuf;
    use std::sync::Mutex;

    use super::*;

    /// A program that stands in for ffmpeg.
    fn script(folder: &Path, body: &str) -> PathBuf {
        let path = folder.join("ffmpeg.sh");
        std::fs::write(&path, format!("#!/bin/sh\n{body}\n")).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
        path
    }

    fn open(program: impl AsRef<OsStr>) -> Result<Video> {
        Video::open(program, Path::new("clip.mp4"), "clip.mp4", &Limits::default())
    }

    /// One test at a time: a process that another test starts would inherit the open script, and the
    /// system refuses to run a file that somebody has open for writing.
    static ALONE: Mutex<()> = Mutex::new(());

    #[test]
    fn failures_name_the_file_and_the_cause() {
        let _alone = ALONE.lock().unwrap();
        let missing = open("/no/such/ffmpeg").err().unwrap().to_string();
        assert!(missing.starts_with("cannot start ffmpeg to read clip.mp4: No such file"), "{missing}");
        assert!(missing.ends_with("install it and see that it is on the PATH"), "{missing}");

        let folder = tempfile::tempdir().unwrap();
        for (body, expected) in [
            (
                "echo first >&2; echo 'clip.mp4: bad codec' >&2; echo >&2; exit 3",
                "(exit status: 3): clip.mp4: bad codec",
            ),
            ("exit 1", "(exit status: 1): it wrote no readable video and gave no reason"),
            ("exit 0", "(exit status: 0): it wrote no readable video and gave no reason"),
            ("echo garbage; exec sleep 600", "it wrote no readable video and gave no reason"),
        ] {
            let error = open(script(folder.path(), body)).err().unwrap().to_string();
            assert!(
                error.starts_with("ffmpeg cannot read clip.mp4 (") && error.contains(expected),
                "{error}"
            );
        }
    }

    #[test]
    fn frames_before_a_failure_are_given() {
        let _alone = ALONE.lock().unwrap();
        let folder = tempfile::tempdir().unwrap();
        let body = "printf 'YUV4MPEG2 W1 H1 F5:1 Cmono\\nFRAME\\n\\353'; echo 'lost the rest' >&2; exit 2";
        let mut video = open(script(folder.path(), body)).unwrap();
        assert_eq!(video.size(), FrameSize::new(1, 1));
        assert_eq!(video.read_frame().unwrap().unwrap().pixels(), [255; 3]);
        let error = video.read_frame().unwrap_err().to_string();
        assert_eq!(error, "ffmpeg cannot read clip.mp4 (exit status: 2): lost the rest");
    }
}
