//! The heat map of losses: rows are streams, columns time, a colour the share of packets lost there.

use super::lines::frame;
use super::{Axis, Canvas, Size};
use crate::output::words;
use crate::result::HeatMap;

/// What a row and a column need at least, in pixels.
const ROW_HEIGHT: f64 = 5.0;
const COLUMN_WIDTH: f64 = 3.0;
const ROWS_MAX: usize = 64;

/// Upper bounds of the colours in percent, for the legend; the first is no loss, the last has no bound.
pub const CLASSES: [(&str, f64); 6] = [
    ("none", 0.0),
    ("to 0.01 %", 0.01),
    ("to 0.1 %", 0.1),
    ("to 1 %", 1.0),
    ("to 10 %", 10.0),
    ("more", 100.0),
];

/// The class of a loss; `None` where nothing was expected.
pub fn class(lost: u64, expected: u64) -> Option<usize> {
    if expected == 0 && lost == 0 {
        return None;
    }
    let percent = 100.0 * lost as f64 / expected.max(1) as f64;
    CLASSES
        .iter()
        .position(|(_, most)| percent <= *most)
        .or(Some(CLASSES.len() - 1))
}

/// A map with at most so many rows and columns: cells are summed, none is left out.
pub fn shrunk(map: &HeatMap, rows_max: usize, columns_max: usize) -> HeatMap {
    let columns = map.lost.iter().map(Vec::len).max().unwrap_or(0);
    let (down, across) = (
        map.lost.len().div_ceil(rows_max.max(1)).max(1),
        columns.div_ceil(columns_max.max(1)).max(1),
    );
    let sum = |cells: &[Vec<u64>]| -> Vec<Vec<u64>> {
        let row = |rows: &[Vec<u64>]| -> Vec<u64> {
            let cell = |column: usize| {
                let of_row = |row: &Vec<u64>| row.iter().skip(column * across).take(across).sum::<u64>();
                rows.iter().map(of_row).sum()
            };
            (0..columns.div_ceil(across)).map(cell).collect()
        };
        cells.chunks(down).map(row).collect()
    };
    HeatMap {
        rows: map.rows.iter().copied().step_by(down).collect(),
        streams_per_row: map.streams_per_row * down as u32,
        seconds_per_column: map.seconds_per_column * across as f64,
        lost: sum(&map.lost),
        expected: sum(&map.expected),
    }
}

/// The map, as high as its rows need.
pub fn draw(map: &HeatMap, streams: u64, size: Size) -> String {
    let map = shrunk(map, ROWS_MAX, (size.inner_width() / COLUMN_WIDTH) as usize);
    let rows = map.lost.len();
    let columns = map.lost.iter().map(Vec::len).max().unwrap_or(0);
    let row_height = (190.0 / rows.max(1) as f64).clamp(ROW_HEIGHT, 18.0);
    let size = size.high(size.top + size.bottom + row_height * rows.max(1) as f64);
    let mut canvas = Canvas::new(size, &format!("Losses of {streams} streams over time"));
    let end_s = columns as f64 * map.seconds_per_column;
    frame(
        &mut canvas,
        size,
        &Axis::of_time(end_s, (size.inner_width() / 70.0) as usize),
        &row_names(&map, row_height),
    );
    let wide = size.inner_width() / columns.max(1) as f64;
    for (row, lost) in map.lost.iter().enumerate() {
        let top = size.top + row as f64 * row_height;
        for run in runs(lost, map.expected.get(row)) {
            let Some(class) = run.class else { continue };
            let place = (size.left + run.from as f64 * wide, top);
            let area = ((run.to - run.from) as f64 * wide - 0.4, row_height - 0.6);
            let hint = (class > 0).then(|| hint(&map, row, &run, streams));
            canvas.rect(&format!("h{class}"), place, area, hint.as_deref());
        }
    }
    canvas.finish()
}

/// Cells of one row side by side and of one colour.
struct Run {
    from: usize,
    to: usize,
    class: Option<usize>,
    lost: u64,
    expected: u64,
}

/// Cells without loss melt into one; each with a loss stays alone, with its own figures.
fn runs(lost: &[u64], expected: Option<&Vec<u64>>) -> Vec<Run> {
    let mut runs: Vec<Run> = Vec::new();
    for (column, &lost) in lost.iter().enumerate() {
        let expected = expected.and_then(|row| row.get(column)).copied().unwrap_or(0);
        let class = class(lost, expected);
        match runs.last_mut().filter(|last| last.class == class && lost == 0) {
            Some(last) => last.to = column + 1,
            None => runs.push(Run {
                from: column,
                to: column + 1,
                class,
                lost,
                expected,
            }),
        }
    }
    runs
}

fn hint(map: &HeatMap, row: usize, run: &Run, streams: u64) -> String {
    let first = map.rows.get(row).copied().unwrap_or(0);
    let last = (u64::from(first) + u64::from(map.streams_per_row.max(1)) - 1).min(streams.saturating_sub(1));
    let at_s = run.from as f64 * map.seconds_per_column;
    let who = match u64::from(first) >= last {
        true => format!("stream {first}"),
        false => format!("streams {first}–{last}"),
    };
    format!(
        "{who}, from second {}: {} of {} lost ({})",
        words::figures(at_s),
        words::count(run.lost),
        words::count(run.expected),
        words::share(run.lost, run.expected)
    )
}

/// The first stream of a row, for as many rows as there is room.
fn row_names(map: &HeatMap, row_height: f64) -> Axis {
    let rows = map.lost.len().max(1);
    let every = (26.0 / row_height).ceil() as usize;
    let mut axis = Axis::of_time(rows as f64, 1);
    axis.label = match map.streams_per_row {
        0 | 1 => "stream".to_owned(),
        many => format!("first of {many} streams"),
    };
    let named = map.rows.iter().enumerate().step_by(every.max(1));
    // The first row is at the top, where a vertical axis ends.
    axis.ticks = named
        .map(|(row, first)| (rows as f64 - row as f64 - 0.5, first.to_string()))
        .collect();
    axis
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::output::fixture;

    #[test]
    fn the_smallest_loss_has_a_colour_and_no_loss_has_none() {
        assert_eq!(class(0, 10), Some(0));
        assert_eq!(class(1, 100_000_000), Some(1));
        assert_eq!(class(1, 1000), Some(2));
        assert_eq!(class(10, 10), Some(5));
        assert_eq!(class(5, 0), Some(5), "lost what was not even expected");
        assert_eq!(class(0, 0), None);
    }

    #[test]
    fn no_loss_gets_lost_when_a_map_shrinks() {
        for map in [fixture::heat(64, 60), fixture::heat(7, 1000), HeatMap::default()] {
            let small = shrunk(&map, 10, 13);
            assert!(small.lost.len() <= 10 && small.lost.iter().all(|row| row.len() <= 13));
            let sum = |cells: &[Vec<u64>]| cells.iter().flatten().sum::<u64>();
            assert_eq!(sum(&small.lost), sum(&map.lost));
            assert_eq!(sum(&small.expected), sum(&map.expected));
            assert_eq!(small.rows.len(), small.lost.len());
        }
    }

    #[test]
    fn a_map_of_10000_streams_stays_small_enough_to_be_sent_around() {
        let run = fixture::many_streams();
        let map = run
            .stored
            .and_then(|stored| stored.heat)
            .expect("the fixture has one");
        let text = draw(&map, 10_000, Size::DESK);
        assert!(text.len() < 2_000_000, "{} bytes", text.len());
        assert!(draw(&HeatMap::default(), 0, Size::PHONE).ends_with("</svg>"));
    }
}
