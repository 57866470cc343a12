//! To come.
use super::super::expect::Vector;
pub fn all() -> Vec<Vector> {
    vec![]
}
pub fn releases() -> Vec<super::super::Release> {
    vec![]
}
