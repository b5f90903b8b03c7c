//! Inputs one after the other: a bad one is noted and does not stop the rest.

use std::time::Instant;

use anyhow::{Context, Error, Result};
use zoo_core::Image;
use zoo_metrics::latency::Timings;
use zoo_vision::{Frame, Frames, Source};

use crate::args::{InputArgs, RunArgs};
use crate::exit::{Outcome, note, with_causes};
use crate::output::{Answer, Circumstances, Sink};
use crate::progress::Progress;
use crate::table::{Table, number};

/// Failures that the summary prints.
const SHOWN: usize = 10;
/// Pictures whose time does not count, while caches and clocks settle.
const WARM_UP: usize = 1;

/// One input, opened.
pub struct Input {
    /// As it was asked for.
    pub name: String,
    pub frames: Frames,
    /// Whether its frames follow each other in time.
    pub is_clip: bool,
}

/// A run over all inputs.
pub struct Session {
    sink: Sink,
    limit: usize,
    done: usize,
    failures: Vec<String>,
}

impl Session {
    /// Opens the inputs and the outputs, and hands each input to `handle`, whose errors end the run:
    /// what concerns one input only goes to [`Session::fail`].
    pub fn run(
        args: &RunArgs,
        caveat: Option<&'static str>,
        mut handle: impl FnMut(&mut Self, Input) -> Result<()>,
    ) -> Result<Outcome> {
        // Models are loaded by now.
        zoo_kernels::release_freed_memory();
        let parsed: Vec<_> = args.input.inputs.iter().map(|text| (text, Source::parse(text))).collect();
        let sources: Vec<Source> =
            parsed.iter().filter_map(|(_, source)| source.as_ref().ok().cloned()).collect();
        let sink = Sink::open(&args.output, &sources, caveat)?;
        let limit = args.input.limit.unwrap_or(usize::MAX);
        let mut session = Self { sink, limit, done: 0, failures: Vec::new() };
        for (text, source) in parsed {
            match source.map_err(Error::from).and_then(|source| open(text, &source, &args.input)) {
                Ok(input) => handle(&mut session, input)?,
                Err(error) => session.fail(error),
            }
        }
        session.finish()
    }

    /// The frames that the limit leaves.
    pub fn frames(&self, frames: Frames) -> std::iter::Take<Frames> {
        frames.take(self.limit)
    }

    /// How many frames will come, where that is known.
    pub fn expected(&self, frames: &Frames) -> Option<usize> {
        frames.count_hint().map(|count| count.min(self.limit))
    }

    /// Writes an answer.
    pub fn done(&mut self, frame: &Frame, answer: impl Answer, how: &Circumstances) -> Result<()> {
        self.done += 1;
        self.sink.write(frame, answer, how)
    }

    /// Notes that an input, or a frame of one, failed.
    pub fn fail(&mut self, error: impl Into<Error>) {
        self.failures.push(with_causes(&error.into()));
    }

    /// Runs a model on pictures that have nothing to do with each other, `batch` at a time.
    pub fn stills<A: Answer>(
        &mut self,
        input: Input,
        batch: usize,
        timings: &mut Timings,
        mut predict: impl FnMut(&[Image]) -> Result<Vec<A>>,
    ) -> Result<()> {
        let progress = Progress::new(self.expected(&input.frames), &input.name);
        let in_clip = input.is_clip;
        let mut frames = self.frames(input.frames);
        loop {
            let mut group: Vec<Frame> = Vec::with_capacity(batch);
            let mut ended = true;
            for frame in frames.by_ref() {
                progress.step();
                match frame {
                    Ok(frame) => group.push(frame),
                    Err(error) => self.fail(error),
                }
                if group.len() == batch {
                    ended = false;
                    break;
                }
            }
            if group.is_empty() {
                return Ok(());
            }
            let images: Vec<Image> = group.iter().map(|frame| frame.image.clone()).collect();
            let started = Instant::now();
            match predict(&images) {
                Ok(answers) => {
                    let each = started.elapsed() / images.len().max(1) as u32;
                    for (frame, answer) in group.iter().zip(answers) {
                        timings.push(each);
                        let how = Circumstances {
                            milliseconds: Some(1e3 * each.as_secs_f64()),
                            in_clip,
                            ..Default::default()
                        };
                        progress.pause(|| self.done(frame, answer, &how))?;
                    }
                }
                Err(error) => {
                    let names: Vec<&str> = group.iter().map(|frame| frame.name.as_str()).collect();
                    self.fail(error.context(format!("processing {}", names.join(", "))));
                }
            }
            if ended {
                return Ok(());
            }
        }
    }

    fn finish(self) -> Result<Outcome> {
        if let Some(folder) = self.sink.finish()? {
            note(format_args!("pictures are in {}", folder.display()));
        }
        if self.failures.is_empty() {
            return Ok(Outcome::Success);
        }
        note(format_args!("{} failed, {} done:", self.failures.len(), self.done));
        self.failures.iter().take(SHOWN).for_each(|failure| note(format_args!("  {failure}")));
        if let Some(more) = self.failures.len().checked_sub(SHOWN).filter(|&more| more > 0) {
            note(format_args!("  and {more} more"));
        }
        Ok(if self.done == 0 { Outcome::Failed } else { Outcome::Partly })
    }
}

fn open(name: &str, source: &Source, args: &InputArgs) -> Result<Input> {
    let frames = source.frames()?;
    // Clips state a size ahead; a folder holds the frames of one unless said otherwise.
    let is_clip = !args.stills && (frames.size().is_some() || matches!(source, Source::Folder(_)));
    Ok(Input { name: name.to_owned(), frames, is_clip })
}

/// Times that do not count before the first that does.
pub fn still_timings() -> Timings {
    Timings::new(WARM_UP)
}

/// The table of times of single pictures under `--timings`, if there were any.
pub fn print_timings(timings: &Timings) {
    let Some(d) = timings.distribution() else { return };
    let mut table = Table::new(["", "n", "median ms", "p95 ms", "p99 ms", "mean ± std ms"]);
    table.row([
        "time a picture".to_owned(),
        d.n.to_string(),
        number(Some(d.median), 1),
        number(Some(d.p95), 1),
        number(Some(d.p99), 1),
        format!("{:.1} ± {:.1}", d.mean, d.std),
    ]);
    note(table);
}

/// The first frame of a clip that can be read, and the frames after it; failures before it are noted.
pub fn first_frame(
    session: &mut Session,
    frames: &mut impl Iterator<Item = zoo_vision::Result<Frame>>,
    name: &str,
) -> Option<Frame> {
    for frame in frames {
        match frame.with_context(|| format!("reading {name}")) {
            Ok(frame) => return Some(frame),
            Err(error) => session.fail(error),
        }
    }
    None
}
