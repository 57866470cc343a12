//! The figures of all shards, added up and made readable.
