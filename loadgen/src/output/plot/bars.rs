//! Bars: how often each size occurs.

use super::lines::frame;
use super::{Axis, Canvas, Size};
use crate::output::words;
use std::collections::BTreeMap;

/// Sizes of bursts, as shares of the packets (a burst of eight weighs eight times a burst of one).
pub fn bursts(counts: &BTreeMap<u64, u64>, size: Size) -> String {
    let packets: u64 = counts.iter().map(|(length, count)| length * count).sum();
    let share = |length: u64, count: u64| 100.0 * (length * count) as f64 / packets.max(1) as f64;
    let longest = counts.keys().max().copied().unwrap_or(1).max(1);
    let y = Axis::from_zero(
        "% of packets",
        counts.iter().map(|(&length, &count)| share(length, count)),
        4,
    );
    let slot = size.inner_width() / longest as f64;
    let wide = (slot * 0.7).clamp(1.0, 46.0);
    let mut canvas = Canvas::new(size, &format!("Share of packets by burst size, 1 to {longest}"));
    frame(&mut canvas, size, &ticks(longest, size), &y);
    for (&length, &count) in counts {
        let share = share(length, count);
        let (top, middle) = (size.y(y.share(share)), size.left + (length as f64 - 0.5) * slot);
        let hint = format!(
            "bursts of {length}: {} times, {} of all packets",
            words::count(count),
            words::share(length * count, packets)
        );
        canvas.rect(
            "bar",
            (middle - wide / 2.0, top),
            (wide, (size.y(0.0) - top).max(1.0)),
            Some(&hint),
        );
    }
    canvas.finish()
}

/// A name under the middle of each slot, or of every so many.
fn ticks(longest: u64, size: Size) -> Axis {
    let room = (size.inner_width() / 26.0) as u64;
    let every = longest.div_ceil(room.max(1)).max(1);
    let mut axis = Axis::of_time(longest as f64, 1);
    axis.label = "packets back to back from one stream".to_owned();
    let named = (1..=longest).filter(|length| *length == 1 || length % every == 0);
    axis.ticks = named
        .map(|length| (length as f64 - 0.5, length.to_string()))
        .collect();
    axis
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::output::fixture;

    #[test]
    fn there_is_a_bar_for_each_size_and_none_without() {
        let run = fixture::lossy();
        assert_eq!(
            bursts(&run.sending.bursts, Size::DESK)
                .matches("class=\"bar\"")
                .count(),
            8
        );
        assert_eq!(
            bursts(&BTreeMap::new(), Size::PHONE)
                .matches("class=\"bar\"")
                .count(),
            0
        );
    }
}
