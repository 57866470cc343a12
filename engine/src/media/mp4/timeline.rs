//! From presentation times to the times an MP4 wants: decoding times, offsets, and the edit that is shown.
//!
//! RTP carries presentation times, and packets come in decoding order. Decoding times are the presentation times
//! sorted, moved back by the delay `shift`: the smallest that lets no frame be shown before it is decoded.
//!
//! ```text
//! decoding order    I0  P3  B1  B2  P6 …          presentation times as sent
//! sorted             0   1   2   3   4 …
//! sorted − shown     0  −2  +1  +1  −2 …          shift = 1 frame
//! ```
//!
//! Gaps between frames stay as they were in time: the frame before a gap lasts until the one after it.

/// The longest time between samples that ffmpeg reads (a signed 32-bit number), in ticks of the timescale.
const MAX_DELTA: i64 = i32::MAX as i64;
/// How long a lone frame lasts: 1/25 s.
const LONE_FRAME_TICKS: i64 = 3_600;
/// Ticks per second before any division.
pub(in crate::media) const TICKS_HZ: u32 = 90_000;

/// One sample as it was recorded.
#[derive(Clone, Copy, Debug)]
pub(in crate::media) struct Moment {
    /// Presentation time in ticks of [`TICKS_HZ`].
    pub shown: i64,
    /// Pictures of this stream are shown in decoding order, whatever their timestamps say.
    pub in_order: bool,
    /// Part of what is to be shown; else only decoded.
    pub wanted: bool,
}

/// When each sample is decoded and shown.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::media) struct Timeline {
    /// Ticks per second.
    pub timescale: u32,
    /// Time until the next sample is decoded, per sample.
    pub deltas: Vec<u32>,
    /// From decoding to showing, per sample.
    pub offsets: Vec<u32>,
    /// What is shown, in media time: start and end.
    pub edit: (u64, u64),
    /// Presentation time of the edit's start, in ticks of `timescale`.
    pub starts: i64,
}

impl Timeline {
    /// The timeline of `moments`, in decoding order. `None` if none is wanted.
    pub fn new(mut moments: Vec<Moment>) -> Option<Timeline> {
        if !moments.iter().any(|m| m.wanted) {
            return None;
        }
        keep_decoding_order(&mut moments);
        let mut order = sort(&moments);
        let divisor = divisor_for(&moments, &order);
        if divisor > 1 {
            moments
                .iter_mut()
                .for_each(|m| m.shown = m.shown.div_euclid(divisor));
            order = sort(&moments);
        }
        separate(&mut moments, &order);

        let sorted: Vec<i64> = order.iter().map(|&i| moments[i as usize].shown).collect();
        let shift = sorted
            .iter()
            .zip(&moments)
            .map(|(s, m)| s - m.shown)
            .max()
            .unwrap_or(0)
            .max(0);
        let last_delta = typical_delta(&sorted, LONE_FRAME_TICKS / divisor);
        let end_of = |rank: usize| sorted.get(rank + 1).copied().unwrap_or(sorted[rank] + last_delta);
        let first_wanted = order.iter().position(|&i| moments[i as usize].wanted)?;
        let last_wanted = order.iter().rposition(|&i| moments[i as usize].wanted)?;
        let media_time = |shown: i64| (shown - sorted[0] + shift) as u64;
        Some(Timeline {
            timescale: TICKS_HZ / divisor as u32,
            deltas: (0..sorted.len())
                .map(|rank| (end_of(rank) - sorted[rank]) as u32)
                .collect(),
            offsets: sorted
                .iter()
                .zip(&moments)
                .map(|(s, m)| (m.shown - s + shift) as u32)
                .collect(),
            edit: (media_time(sorted[first_wanted]), media_time(end_of(last_wanted))),
            starts: sorted[first_wanted],
        })
    }
}

/// Where pictures are shown as they are decoded, a timestamp that runs backwards is wrong, and is held.
fn keep_decoding_order(moments: &mut [Moment]) {
    for i in 1..moments.len() {
        if moments[i].in_order {
            moments[i].shown = moments[i].shown.max(moments[i - 1].shown + 1);
        }
    }
}

/// Sample numbers in order of showing; equal times keep decoding order.
fn sort(moments: &[Moment]) -> Vec<u32> {
    let mut order: Vec<u32> = (0..moments.len() as u32).collect();
    order.sort_by_key(|&i| (moments[i as usize].shown, i));
    order
}

/// Lets no two frames be shown at one instant: players would drop one of them.
fn separate(moments: &mut [Moment], order: &[u32]) {
    for pair in order.windows(2) {
        let before = moments[pair[0] as usize].shown;
        let shown = &mut moments[pair[1] as usize].shown;
        *shown = (*shown).max(before + 1);
    }
}

/// The divisor of the timescale at which the longest gap can be written. At 90 kHz that is 6.6 hours.
fn divisor_for(moments: &[Moment], order: &[u32]) -> i64 {
    let shown = |i: u32| moments[i as usize].shown;
    let longest = order
        .windows(2)
        .map(|pair| shown(pair[1]) - shown(pair[0]))
        .max()
        .unwrap_or(0);
    [1, 10, 90, 900]
        .into_iter()
        .find(|divisor| longest / divisor < MAX_DELTA)
        .unwrap_or(9_000)
}

/// The (lower) median of the last deltas: a frame like those before it, and no gap.
fn typical_delta(sorted: &[i64], lone: i64) -> i64 {
    const LOOK_BACK: usize = 32;
    let tail = &sorted[sorted.len().saturating_sub(LOOK_BACK)..];
    let mut deltas: Vec<i64> = tail.windows(2).map(|pair| pair[1] - pair[0]).collect();
    deltas.sort_unstable();
    deltas
        .get(deltas.len().saturating_sub(1) / 2)
        .copied()
        .unwrap_or(lone)
        .max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wanted(shown: impl IntoIterator<Item = i64>) -> Vec<Moment> {
        shown
            .into_iter()
            .map(|shown| Moment {
                shown,
                in_order: false,
                wanted: true,
            })
            .collect()
    }

    #[test]
    fn frames_without_reordering_are_decoded_when_shown() {
        let t = Timeline::new(wanted([1000, 4600, 8200])).unwrap();
        assert_eq!((t.deltas, t.offsets), (vec![3600; 3], vec![0; 3]));
        assert_eq!((t.edit, t.starts, t.timescale), ((0, 10_800), 1000, 90_000));
    }

    #[test]
    fn b_frames_are_delayed_by_the_least_that_decodes_in_time() {
        let t = Timeline::new(wanted([0, 10_800, 3_600, 7_200, 14_400])).unwrap();
        assert_eq!(t.offsets, [3_600, 10_800, 0, 0, 3_600]);
        assert_eq!(t.edit, (3_600, 3_600 + 18_000));
    }

    #[test]
    fn a_gap_lasts_as_long_as_it_did() {
        let t = Timeline::new(wanted([0, 3_600, 903_600, 907_200])).unwrap();
        assert_eq!(t.deltas, [3_600, 900_000, 3_600, 3_600]);
    }

    #[test]
    fn frames_before_the_first_wanted_are_decoded_but_outside_the_edit() {
        let mut moments = wanted((0..10).map(|i| i * 3_600));
        moments[..4].iter_mut().for_each(|m| m.wanted = false);
        let t = Timeline::new(moments).unwrap();
        assert_eq!(t.edit, (4 * 3_600, 10 * 3_600));
        assert_eq!(t.deltas.len(), 10);
    }

    #[test]
    fn a_gap_of_a_day_is_kept_at_a_coarser_timescale() {
        let day = 86_400 * 90_000;
        let t = Timeline::new(wanted([0, day, day + 3_600])).unwrap();
        assert_eq!(t.timescale, 9_000);
        assert_eq!(t.deltas, [86_400 * 9_000, 360, 360]);
    }

    #[test]
    fn equal_and_backward_timestamps_still_give_every_frame_its_instant() {
        let t = Timeline::new(wanted([0, 3_600, 3_600, 7_200])).unwrap();
        assert_eq!(t.deltas, [3_600, 1, 3_599, 3_599]);
        let mut moments = wanted([0, 3_600, 3_000, 7_200]);
        moments.iter_mut().for_each(|m| m.in_order = true);
        let t = Timeline::new(moments).unwrap();
        assert_eq!(t.offsets, [0; 4]);
    }

    #[test]
    fn nothing_wanted_is_no_timeline() {
        assert_eq!(
            Timeline::new(vec![Moment {
                shown: 0,
                in_order: false,
                wanted: false
            }]),
            None
        );
        assert_eq!(Timeline::new(Vec::new()), None);
    }
}
