//! Where losses were, by stream and second: a picture of bounded size for any number of streams and any length.

use crate::result::HeatMap;

const ROWS_MAX: usize = 128;
const COLUMNS_MAX: usize = 600;
const SECOND_NS: u64 = 1_000_000_000;

/// Counts of one worker; all of the same run are of one shape, and add up.
pub struct Heat {
    streams_per_row: usize,
    column_ns: u64,
    columns: usize,
    /// Row by row: (lost, expected).
    cells: Vec<(u64, u64)>,
}

impl Heat {
    /// For streams 0 to `streams` over `length_ns` from the start.
    pub fn new(streams: usize, length_ns: u64) -> Heat {
        let streams_per_row = streams.div_ceil(ROWS_MAX).max(1);
        let seconds = (length_ns / SECOND_NS) as usize + 1;
        let seconds_per_column = seconds.div_ceil(COLUMNS_MAX);
        let columns = seconds.div_ceil(seconds_per_column);
        Heat {
            streams_per_row,
            column_ns: seconds_per_column as u64 * SECOND_NS,
            columns,
            cells: vec![(0, 0); streams.div_ceil(streams_per_row) * columns],
        }
    }

    /// One packet that ought to be stored.
    pub fn count(&mut self, stream: u32, intended_ns: u64, lost: bool) {
        let column = ((intended_ns / self.column_ns) as usize).min(self.columns - 1);
        let cell = &mut self.cells[stream as usize / self.streams_per_row * self.columns + column];
        cell.0 += u64::from(lost);
        cell.1 += 1;
    }

    pub fn merge(&mut self, other: &Heat) {
        for (mine, theirs) in self.cells.iter_mut().zip(&other.cells) {
            mine.0 += theirs.0;
            mine.1 += theirs.1;
        }
    }

    pub fn map(&self) -> HeatMap {
        let rows = self.cells.chunks_exact(self.columns);
        HeatMap {
            rows: (0..rows.len())
                .map(|row| (row * self.streams_per_row) as u32)
                .collect(),
            streams_per_row: self.streams_per_row as u32,
            seconds_per_column: (self.column_ns / SECOND_NS) as f64,
            lost: rows
                .clone()
                .map(|row| row.iter().map(|cell| cell.0).collect())
                .collect(),
            expected: rows.map(|row| row.iter().map(|cell| cell.1).collect()).collect(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_loss_stands_in_its_streams_row_and_its_second() {
        let mut heat = Heat::new(3, 2_500_000_000);
        heat.count(2, 1_999_999_999, true);
        heat.count(2, 1_000_000_000, false);
        let mut other = Heat::new(3, 2_500_000_000);
        other.count(0, 2_400_000_000, false);
        heat.merge(&other);
        let map = heat.map();
        assert_eq!(
            (map.rows, map.streams_per_row, map.seconds_per_column),
            (vec![0, 1, 2], 1, 1.0)
        );
        assert_eq!(map.lost, [[0, 0, 0], [0, 0, 0], [0, 1, 0]]);
        assert_eq!(map.expected, [[0, 0, 1], [0, 0, 0], [0, 2, 0]]);
    }

    #[test]
    fn many_streams_and_long_runs_stay_a_picture() {
        let mut heat = Heat::new(4001, 86_400 * SECOND_NS);
        heat.count(4000, 86_400 * SECOND_NS, true);
        let map = heat.map();
        assert!(map.lost.len() <= ROWS_MAX && map.lost[0].len() <= COLUMNS_MAX);
        assert_eq!(map.lost.iter().flatten().sum::<u64>(), 1);
        assert_eq!(map.streams_per_row, 32);
    }
}
