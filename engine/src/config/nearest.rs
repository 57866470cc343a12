//! "Did you mean": the known name that takes the fewest slips of the finger.

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
        assert_eq!(distance("deadline", "deadline"), 0);
        assert_eq!(distance("dedaline", "deadline"), 1);
        assert_eq!(distance("dead_line", "deadline"), 1);
        assert_eq!(distance("max-age", "max_age"), 0);
        assert_eq!(distance("kitten", "sitting"), 3);
    }

    #[test]
    fn the_nearest_name_is_offered_only_if_near() {
        let names = ["max_age", "max_bytes", "min_free"];
        assert_eq!(nearest("maxbytes", names.into_iter()), Some("max_bytes"));
        assert_eq!(nearest("mix_age", names.into_iter()), Some("max_age"));
        assert_eq!(nearest("retention_policy", names.into_iter()), None);
    }
}
