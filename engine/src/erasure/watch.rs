//! How a running engine hears of what the command line did: it looks at the key store's counters once a second.

use std::path::Path;

use harborseal_segment::ids::SegmentId;

use super::held::Held;
use crate::keystore::{Keystore, StoreError};

/// What there is to do.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct News {
    /// Keys were destroyed: new segments are to begin, under new ones.
    pub keys_erased: bool,
    /// Segments were deleted, lost a part of their size, or are held or no longer held.
    pub catalog_changed: bool,
    /// What a person should read.
    pub trouble: Option<String>,
}

/// The key store, watched.
pub struct Watch {
    store: Keystore,
    /// The counters last seen; `None` before there is a store.
    generation: u64,
    changes: u64,
    held: Result<Held, ()>,
    said: Option<String>,
}

impl Watch {
    /// Begins to watch. Before the first segment is prepared: what is erased from here on is noticed.
    pub fn begin(store: Keystore) -> Watch {
        let mut watch = Watch {
            store,
            generation: 0,
            changes: u64::MAX,
            held: Err(()),
            said: None,
        };
        if let Ok(Some(state)) = watch.store.look() {
            watch.generation = state.generation;
        }
        watch
    }

    /// What is new since the last look. The first one reads the holds.
    pub fn look(&mut self) -> News {
        let mut news = News::default();
        let looked = self
            .store
            .look()
            .map(|state| state.map_or((0, 0), |s| (s.generation, s.changes)));
        match looked {
            Ok((generation, changes)) => {
                news.keys_erased = generation != self.generation;
                self.generation = generation;
                if changes != self.changes || self.held.is_err() {
                    news.catalog_changed = true;
                    self.held = Held::read(&self.store).map_err(|error| {
                        news.trouble = Some(trouble(&error));
                    });
                    self.changes = changes;
                }
            }
            Err(error) => news.trouble = Some(trouble(&error)),
        }
        news.trouble = news.trouble.filter(|text| self.said.as_ref() != Some(text));
        self.said = news.trouble.clone().or(self.said.take());
        news
    }

    /// Whether retention must leave a segment. While the holds cannot be read, it must leave all.
    pub fn keeps(&self, segment_id: &SegmentId, path: &Path) -> bool {
        self.held
            .as_ref()
            .map_or(true, |held| held.keeps(segment_id, path))
    }

    /// Holds in force, as far as is known.
    pub fn holds(&self) -> u64 {
        self.held.as_ref().map_or(0, |held| held.count() as u64)
    }
}

fn trouble(error: &StoreError) -> String {
    format!("{error}; until it can be read again, retention deletes nothing")
}
