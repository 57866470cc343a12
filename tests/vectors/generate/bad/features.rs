//! To come.
use super::super::expect::Vector;
pub fn all() -> Vec<Vector> {
    vec![]
}
