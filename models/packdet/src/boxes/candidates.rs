//! What cells say, and what of it stays.

use candle_core::{Result as CandleResult, Tensor, bail};
use zoo_core::FrameSize;

use super::form::Decoder;
use super::values::{Values, readable, with_values};
use super::{Convention, Group, PostProcess, Threshold};
use crate::error::Context as _;
use crate::plane::{Cell, Grid, LEVELS};
use crate::raw::RawMaps;
use crate::{Error, Result};

/// A box that a cell shows.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Candidate {
    /// Index of the class, from 0 on.
    pub class: usize,
    /// How sure: √(class · centerness), or the class's score where there is no centerness.
    pub score: f32,
    /// (x0, y0, x1, y1) in pixels of the resized image, clipped to it.
    pub bbox: [f32; 4],
}

/// The boxes of an image before any suppresses another.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Candidates {
    /// The best of each group.
    pub boxes: Vec<Candidate>,
    /// How many scores of each group passed the threshold, those that were not among the best too.
    pub passed: Vec<usize>,
}

/// A score that passed.
#[derive(Debug, Clone, Copy)]
struct Passed {
    /// What groups are ordered by: class · centerness.
    rank: f32,
    /// Output map, cell of it, channel.
    grid: u32,
    cell: u32,
    channel: u32,
}

impl Candidates {
    /// What the maps say of image `b`, whose pixels are the first rows and columns of the input, of this size.
    ///
    /// A class of zero is the first one. Order: by group; the candidates of a group by falling score, then by map, cell and
    /// channel.
    ///
    /// # Errors
    /// If a value that counts is no number, or the maps do not fit each other or the rule.
    pub fn decode(raw: &RawMaps, b: usize, image: FrameSize, rule: &PostProcess) -> Result<Self> {
        let decoder = Decoder::new(rule.form);
        let groups = match rule.group {
            Group::Level => LEVELS,
            Group::Map => raw.places.maps.len(),
        };
        let mut passed: Vec<Vec<Passed>> = vec![Vec::new(); groups];
        let mut maps = Vec::with_capacity(raw.maps.len());
        if raw.maps.len() != raw.places.grids.len() {
            return Err(Error::Config(format!(
                "{} output maps, but places of {}",
                raw.maps.len(),
                raw.places.grids.len()
            )));
        }
        for map in &raw.maps {
            let read = |map: &Tensor| readable(map).context("reading raw maps");
            let centerness = map.centerness.as_ref().map(read).transpose()?;
            maps.push((read(&map.scores)?, read(&map.boxes)?, centerness));
        }
        let not_finite = |what| Error::NotFinite { what, image };
        let of_grids = || maps.iter().zip(&raw.places.grids).enumerate();
        for (grid, ((scores, _, centerness), Grid { cells, .. })) in of_grids() {
            let centres = match centerness {
                Some(logits) => {
                    with_values(logits, b, |values| Ok(values.all().to_vec())).context("centerness")?
                }
                None => Vec::new(),
            };
            if !centres.iter().all(|value| value.is_finite()) {
                return Err(not_finite("centerness"));
            }
            let look = Look { rule, cells, centres: &centres, grid: grid as u32 };
            let finite = with_values(scores, b, |values| look.collect(&values, &mut passed));
            if !finite.context("scores")? {
                return Err(not_finite("scores"));
            }
        }
        let counts = passed.iter().map(Vec::len).collect();
        passed.iter_mut().for_each(|group| best(group, rule.group_best));
        let chosen: Vec<Passed> = passed.into_iter().flatten().collect();
        let mut found: Vec<Option<Candidate>> = vec![None; chosen.len()];
        for (grid, ((scores, boxes, centerness), Grid { cells, .. })) in of_grids() {
            let classes = (scores.dim(1).context("scores")? / rule.form.per_cell()).max(1);
            let decoded = with_values(boxes, b, |values| {
                let own = chosen.iter().zip(&mut found).filter(|(passed, _)| passed.grid as usize == grid);
                for (&Passed { rank, cell, channel, .. }, slot) in own {
                    let (cell, channel) = (cell as usize, channel as usize);
                    let (anchor, class) = (channel / classes, channel % classes);
                    if rule.drop_last_class && class + 1 == classes {
                        continue;
                    }
                    let code = [0, 1, 2, 3].map(|side| values.at(4 * anchor + side, cell));
                    let bbox = cells.get(cell).and_then(|place| decoder.decode(place, anchor, code));
                    let score = if centerness.is_some() { rank.sqrt() } else { rank };
                    *slot = bbox.map(|bbox| Candidate {
                        class,
                        score,
                        bbox: clipped(bbox, image, rule.convention),
                    });
                }
                Ok(())
            });
            decoded.context("boxes")?;
        }
        let boxes: Vec<Candidate> = found.into_iter().flatten().collect();
        if boxes.iter().any(|found| found.bbox.iter().any(|v| v.is_nan())) {
            return Err(not_finite("boxes"));
        }
        Ok(Self { boxes, passed: counts })
    }

    /// The boxes that no better one of their class suppresses, best first, equal scores in the order of the candidates.
    pub fn suppress(&self, rule: &PostProcess) -> Vec<Candidate> {
        let kept = self.kept(rule, &self.boxes, rule.max_boxes);
        let last =
            kept.last().filter(|_| kept.len() == rule.max_boxes && rule.convention == Convention::PlusOne);
        // Whoever scores like the last that stays, stays too.
        match last.map(|last| last.score) {
            Some(score) if self.boxes.iter().filter(|c| c.score == score).nth(1).is_some() => {
                let level: Vec<Candidate> = self.boxes.iter().filter(|c| c.score >= score).copied().collect();
                self.kept(rule, &level, usize::MAX)
            }
            _ => kept,
        }
    }

    fn kept(&self, rule: &PostProcess, from: &[Candidate], limit: usize) -> Vec<Candidate> {
        let boxes: Vec<[f32; 4]> = from.iter().map(|c| c.bbox).collect();
        let scores: Vec<f32> = from.iter().map(|c| c.score).collect();
        let classes: Vec<usize> = from.iter().map(|c| c.class).collect();
        let kept = rule.nms(limit).keep_by_class(&boxes, &scores, &classes);
        kept.into_iter().filter_map(|i| from.get(i)).copied().collect()
    }

    /// Adds the candidates of another look at the same image.
    pub fn extend(&mut self, other: Self) {
        self.boxes.extend(other.boxes);
    }

    /// Brings the boxes from an image of one size to one of another.
    #[must_use]
    pub fn resized(mut self, from: FrameSize, to: FrameSize) -> Self {
        let (x, y) = (to.width as f32 / from.width as f32, to.height as f32 / from.height as f32);
        for Candidate { bbox: [x0, y0, x1, y1], .. } in &mut self.boxes {
            (*x0, *y0, *x1, *y1) = (*x0 * x, *y0 * y, *x1 * x, *y1 * y);
        }
        self
    }

    /// Mirrors the boxes back that were found in a mirrored image of this width.
    #[must_use]
    pub fn mirrored(mut self, width: usize, convention: Convention) -> Self {
        let last = match convention {
            Convention::PlusOne => width as f32 - 1.0,
            Convention::Edges => width as f32,
        };
        for Candidate { bbox: [x0, _, x1, _], .. } in &mut self.boxes {
            (*x0, *x1) = (last - *x1, last - *x0);
        }
        self
    }
}

/// One output map.
struct Look<'a> {
    rule: &'a PostProcess,
    cells: &'a [Cell],
    /// Logits of centerness, one a cell, where there are any.
    centres: &'a [f32],
    grid: u32,
}

impl Look<'_> {
    /// Adds what passes to its group; `false` if a score that counts is no number.
    fn collect(&self, values: &Values, passed: &mut [Vec<Passed>]) -> CandleResult<bool> {
        let Self { rule, cells, centres, grid } = self;
        let classes = values.channels() / rule.form.per_cell().max(1);
        let has_centres = !centres.is_empty();
        if values.cells() != cells.len()
            || classes * rule.form.per_cell() != values.channels()
            || classes == 0
            || (has_centres && centres.len() != cells.len())
        {
            bail!(
                "scores of {} channels at {} cells, expected multiples of {} and {} cells",
                values.channels(),
                values.cells(),
                rule.form.per_cell(),
                cells.len()
            )
        }
        let mut finite = true;
        values.not_below(rule.least_logit(), |channel, cell, logit| {
            finite &= logit.is_finite();
            let class = logistic(logit);
            let rank = match centres.get(cell) {
                Some(&centre) => class * logistic(centre),
                None => class,
            };
            let held = match rule.threshold {
                Threshold::Result if has_centres => rank.sqrt(),
                _ => class,
            };
            let group = cells.get(cell).and_then(|place| match rule.group {
                Group::Level => Some(usize::from(place.level)),
                Group::Map => place.map.map(usize::from),
            });
            if let Some(group) = group.filter(|_| held > rule.score_threshold).and_then(|g| passed.get_mut(g))
            {
                group.push(Passed { rank, grid: *grid, cell: cell as u32, channel: channel as u32 });
            }
        });
        Ok(finite)
    }
}

fn logistic(x: f32) -> f32 {
    1.0 / (1.0 + (-x).exp())
}

/// Leaves the best `limit` of a group, by falling rank; equal ones by map, cell and channel.
fn best(group: &mut Vec<Passed>, limit: usize) {
    let order = |a: &Passed, b: &Passed| {
        let place = |p: &Passed| (p.grid, p.cell, p.channel);
        b.rank.total_cmp(&a.rank).then_with(|| place(a).cmp(&place(b)))
    };
    if limit < group.len() {
        group.select_nth_unstable_by(limit, order);
        group.truncate(limit);
    }
    group.sort_unstable_by(order);
}

fn clipped([x0, y0, x1, y1]: [f32; 4], image: FrameSize, convention: Convention) -> [f32; 4] {
    let least = match convention {
        Convention::PlusOne => 1.0,
        Convention::Edges => 0.0,
    };
    let (x_max, y_max) = ((image.width as f32 - least).max(0.0), (image.height as f32 - least).max(0.0));
    [x0.clamp(0.0, x_max), y0.clamp(0.0, y_max), x1.clamp(0.0, x_max), y1.clamp(0.0, y_max)]
}
