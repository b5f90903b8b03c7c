//! Which share of the signal's channels makes which weights: Algorithm 1 of the supplement, as the
//! authors' code has it, and the two divisions of their earlier code.

use crate::{Error, Result, Version};

/// Members of equal weight, which get equal shares.
struct Group {
    weight: usize,
    members: usize,
    units: usize,
}

impl Group {
    fn total(&self) -> usize {
        self.weight * self.members
    }

    /// What is the group's due at so many units a weight, at least `least`, in equal whole parts.
    fn due(&self, rate: f64, least: usize) -> usize {
        let due = (self.total() as f64 * rate).max(least as f64);
        (due / self.members as f64) as usize * self.members
    }
}

/// Divides `channels`, in whole units of `unit`, among `weights` (counts of dynamic parameters). The
/// result is in the order of `weights`, and its sum is `channels`, except in [`Version::V0_2`], which
/// drops what is left over.
///
/// The supplement's pseudo-code, read literally, can hand out more than there is; this is the code's
/// rule, which agrees with it on all five models. A share can be 0 in [`Version::V0_1`].
///
/// # Errors
/// If the units are not whole, or fewer than the weights.
pub fn divide_channels(
    version: Version,
    channels: usize,
    unit: usize,
    weights: &[usize],
) -> Result<Vec<usize>> {
    if unit == 0 || !channels.is_multiple_of(unit) {
        return Err(Error::Division(format!(
            "{channels} channels are no whole number of units of {unit}: the largest of weight_groups must divide them"
        )));
    }
    if weights.is_empty() || weights.contains(&0) {
        return Err(Error::Division(format!("weights {weights:?}: expected at least one, and none of 0")));
    }
    let units = channels / unit;
    let mut groups = groups(weights);
    let rate = units as f64 / weights.iter().sum::<usize>() as f64;
    match version {
        Version::V0_1 => from_nothing(&mut groups, units, rate)?,
        Version::V0_2 | Version::V1_0 | Version::V1_0Unify => {
            let Some(left) = units.checked_sub(weights.len()) else {
                return Err(Error::Division(format!(
                    "{channels} channels are {units} units of {unit}, fewer than the {} weights: each needs one",
                    weights.len()
                )));
            };
            let drops_rest = version == Version::V0_2 && groups.len() > 1;
            beyond_one_each(&mut groups, left, rate, drops_rest);
        }
    }
    let share = |weight: &usize| {
        let group = groups.iter().find(|group| group.weight == *weight);
        group.map_or(0, |group| group.units / group.members * unit)
    };
    Ok(weights.iter().map(share).collect())
}

/// Equal weights together, the largest sum first, of equal sums the smaller weight.
fn groups(weights: &[usize]) -> Vec<Group> {
    let mut values = weights.to_vec();
    values.sort_unstable();
    values.dedup();
    let members = |value: usize| weights.iter().filter(|&&weight| weight == value).count();
    let mut groups: Vec<Group> =
        values.into_iter().map(|weight| Group { weight, members: members(weight), units: 0 }).collect();
    groups.sort_by_key(|group| std::cmp::Reverse(group.total()));
    groups
}

/// Algorithm 1: a unit for everybody, then by size; the last group takes what is left, or nobody does.
fn beyond_one_each(groups: &mut [Group], mut left: usize, rate: f64, drops_rest: bool) {
    for group in &mut *groups {
        group.units = group.members;
    }
    let Some((last, others)) = groups.split_last_mut() else { return };
    for group in others {
        let more = (group.due(rate, group.members) - group.members).min(left);
        group.units += more;
        left -= more;
    }
    if !drops_rest {
        last.units += left;
    }
}

/// The oldest code: by size alone; the last group takes what is left.
fn from_nothing(groups: &mut [Group], units: usize, rate: f64) -> Result<()> {
    let mut left = units;
    let Some((last, others)) = groups.split_last_mut() else { return Ok(()) };
    for group in others {
        group.units = group.due(rate, 1);
        left = left.checked_sub(group.units).ok_or_else(|| {
            Error::Division(format!("{units} units are not enough for weights of {}", group.weight))
        })?;
    }
    last.units = left;
    Ok(())
}
