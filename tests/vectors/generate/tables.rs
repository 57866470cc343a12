//! How a segment ends: INDEX blocks and FOOTER, from the blocks that stand in it (docs/FORMAT.md §4.7 and §4.8).

use super::expect::BlockSeen;
use super::forge::Forge;
use super::keys::Id;
use super::wire::*;

/// INDEX rows, bytes of each.
pub struct Tables {
    pub chunks: Vec<Vec<u8>>,
    pub streams: Vec<Vec<u8>>,
    pub keys: Vec<Vec<u8>>,
}

impl Tables {
    pub fn of(forge: &Forge) -> Self {
        let of_kind = |kind: u8| forge.blocks.iter().filter(move |block| block.kind == kind);
        let streams: Vec<Id> = of_kind(STREAM).map(|block| block.stream_id).collect();
        let row_of = |id: &Id| streams.iter().position(|stream| stream == id);
        let chunk = |block: &BlockSeen| {
            let row = row_of(&block.stream_id).map_or(u32::MAX, |row| row as u32);
            let place = Fields::default().u64(block.offset).u32(block.total_len).u32(row);
            let times = place.u64(block.first_s).u64(block.last_s);
            times.u64(block.block_no).u64(block.stream_seq).0
        };
        let stream = |block: &BlockSeen| {
            let chunks: Vec<_> = of_kind(CHUNK)
                .filter(|chunk| chunk.stream_id == block.stream_id)
                .collect();
            let first_s = chunks.iter().map(|chunk| chunk.first_s).min().unwrap_or(0);
            let last_s = chunks.iter().map(|chunk| chunk.last_s).max().unwrap_or(0);
            let bytes = chunks.iter().map(|chunk| u64::from(chunk.total_len)).sum();
            let place = Fields::default()
                .bytes(&block.stream_id)
                .u64(block.offset)
                .u32(block.slot)
                .u32(0);
            place
                .u64(chunks.len() as u64)
                .u64(first_s)
                .u64(last_s)
                .u64(bytes)
                .0
        };
        let key = |block: &BlockSeen| {
            let entries = u32_at(forge.block(block.offset), 128);
            Fields::default()
                .u64(block.offset)
                .u32(block.total_len)
                .u32(entries)
                .u64(0)
                .0
        };
        Tables {
            chunks: of_kind(CHUNK).map(chunk).collect(),
            streams: of_kind(STREAM).map(stream).collect(),
            keys: of_kind(KEY).map(key).collect(),
        }
    }
}

impl Forge {
    /// INDEX blocks of `rows`, at most `per_block` in each; where they stand.
    pub fn index(&mut self, kind: u32, rows: &[Vec<u8>], per_block: usize) -> Span {
        let begin = self.end();
        for (part, rows) in rows.chunks(per_block).enumerate() {
            let row_len = rows[0].len() as u32;
            self.push(self.draft(INDEX, index_body(kind, row_len, part as u32, rows)));
        }
        match self.end() - begin {
            0 => (0, 0),
            len => (begin, len),
        }
    }

    /// All three tables, and the FOOTER for them; nobody has put it in yet.
    pub fn tables(&mut self, flags: u32) -> Footer {
        let data_end = self.end();
        let tables = Tables::of(self);
        self.tables_of(flags, data_end, tables, 1000)
    }

    pub fn tables_of(&mut self, flags: u32, data_end: u64, tables: Tables, per_block: usize) -> Footer {
        let chunks = self.index(1, &tables.chunks, per_block);
        let streams = self.index(2, &tables.streams, per_block);
        let keys = self.index(3, &tables.keys, per_block);
        let seen: Vec<_> = self.blocks.iter().filter(|block| block.kind == CHUNK).collect();
        let leaf_count = self.leaves().len() as u64;
        Footer {
            flags,
            reserved: 0,
            chunks,
            streams,
            keys,
            leaf_count,
            root: self.root(),
            prev_root: [0; 32],
            durable_upto: if flags & RECOVERED != 0 {
                self.floor
            } else {
                self.durable
            },
            data_end,
            chunk_count: seen.len() as u64,
            first_s: seen.iter().map(|block| block.first_s).min().unwrap_or(0),
            last_s: seen.iter().map(|block| block.last_s).max().unwrap_or(0),
            signed_leaf_count: if flags & RECOVERED != 0 { 0 } else { leaf_count },
            closed_s: self.seg.created_s + 60,
        }
    }

    pub fn footer_draft(&self, footer: &Footer) -> Draft {
        let mut draft = self.draft(FOOTER, footer.body(&self.seg.node, &self.seg.id));
        draft.durable_4k = (footer.durable_upto / 4096) as u32;
        draft
    }

    pub fn footer(&mut self, footer: &Footer) -> u64 {
        let offset = self.end();
        self.state_watermark(offset, footer.durable_upto);
        self.state = if footer.flags & RECOVERED != 0 {
            "recovered"
        } else {
            "sealed"
        };
        self.push(self.footer_draft(footer))
    }

    /// Closes the segment as its writer does.
    pub fn close(&mut self) -> u64 {
        self.close_with(|_| {})
    }

    pub fn close_with(&mut self, change: impl FnOnce(&mut Footer)) -> u64 {
        let mut footer = self.tables(SEALED | SIGNED);
        change(&mut footer);
        self.footer(&footer)
    }

    /// Closes it as recovery does; `signed`: with the node's key; `leaves`: those before the last whole signed CHECKPOINT.
    pub fn recover(&mut self, signed: bool, leaves: u64) -> u64 {
        let mut footer = self.tables(RECOVERED | if signed { SIGNED } else { 0 });
        footer.signed_leaf_count = leaves;
        self.footer(&footer)
    }
}
