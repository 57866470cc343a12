//! "Did you mean": the known name that takes the fewest slips of the finger. (The engine has the same for its configuration;
//! these tools do not link the engine.)

/// The name closest to `word`, if it is close enough to have been meant: at most one slip in three letters.
pub fn nearest<'a>(word: &str, names: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    let close = |name: &&str| distance(word, name) <= name.len().max(word.len()).div_ceil(3);
    names.filter(close).min_by_key(|name| distance(word, name))
}

/// Slips between two words: letters inserted, left out, replaced, or swapped with their neighbour (optimal string
/// alignment), after folding case and taking `-` for `_`.
fn distance(a: &str, b: &str) -> usize {
    let fold = |word: &str| word.to_lowercase().replace('-', "_");
    strsim::osa_distance(&fold(a), &fold(b))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slips_are_counted() {
        assert_eq!(distance("", "abc"), 3);
        assert_eq!(distance("reorder", "reorder"), 0);
        assert_eq!(distance("reodrer", "reorder"), 1);
        assert_eq!(distance("stored-loss", "stored_loss"), 0);
    }

    #[test]
    fn the_nearest_name_is_offered_only_if_near() {
        let names = ["sent", "stored_loss", "lateness_ms_p99"];
        assert_eq!(nearest("stored_los", names.into_iter()), Some("stored_loss"));
        assert_eq!(nearest("latenes_p99", names.into_iter()), Some("lateness_ms_p99"));
        assert_eq!(nearest("packets_per_fortnight", names.into_iter()), None);
    }
}
