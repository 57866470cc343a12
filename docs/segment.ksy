meta:
  id: harborseal_segment
  title: Harborseal segment, version 1
  file-extension: hseal
  endian: le
  bit-endian: le
  ks-version: "0.11"
doc: |
  Structure of a Harborseal segment, the same that docs/FORMAT.md describes in words; the section numbers are its.

  It describes everything that stands in the clear: places, headers, bodies, sizes, kinds. Bodies of STREAM and CHUNK
  are ciphertext and stay bytes. What needs arithmetic over many bytes is beyond a description: CRC32C, hashes,
  signatures and the Merkle tree are for a reader to check. So a block that is broken only in a checksum looks whole
  from here, and so does one of another segment that no ORIGIN names.

  `places` are the file from its beginning: each is a block, or 4096 bytes that begin none (section 3.3). When all are
  read, `verdicts` refuse what cannot be right: a place without a block where the file's own words say that one must be.
doc-ref: docs/FORMAT.md
seq:
  - id: places
    type: "place(_index, _index == 0 ? 0 : places[_index - 1].floor, _index == 0 ? 0 : places[_index - 1].leaves,
      _index == 0 ? none : places[_index - 1].last_footer)"
    repeat: eos
    doc: SEGMENT and its copy first, then everything in the order in which it was sealed.
  - id: has_head
    size: 0
    valid:
      expr: head_at != none
    doc: Section 2. One whole SEGMENT block at 0 or 4096; without it nobody knows whose blocks these are.
  - id: verdicts
    type: verdict(places[_index])
    repeat: expr
    repeat-expr: places.size
instances:
  none:
    value: 0xffffffff
  head_at:
    value: "is_head_0 ? 0 : (is_head_1 ? 1 : none)"
    doc: The place of the SEGMENT block that counts - the copy, where the first is not whole.
  is_head_0:
    value: "places.size > 0 and places[0].is_block ? places[0].block.header.kind == kind::segment : false"
  is_head_1:
    value: "places.size > 1 and places[1].is_block ? places[1].block.header.kind == kind::segment : false"
  head:
    value: places[head_at].block
  segment:
    value: head.body.as<segment_body>
  last:
    value: places[places.size - 1]
  is_closed:
    value: "last.last_footer == none ? false : places[last.last_footer].closes"
    doc: |
      Section 2. A FOOTER closes where it stands as the file's last 4096 bytes, or where the file only was not cut behind it;
      of the second, its count of leaves is what can be checked here.
  footer:
    value: places[last.last_footer].block.body.as<footer_body>
    if: is_closed
  is_sealed:
    value: "is_closed ? footer.is_sealed : false"
  is_recovered:
    value: "is_closed ? footer.is_recovered : false"
  whole_until:
    value: "is_sealed ? places[last.last_footer].start : (is_recovered ? footer.durable_upto : last.floor)"
    doc: |
      Section 8. Before this offset every place must begin a block: in a sealed segment before its FOOTER, in a recovered one
      below the watermark that the FOOTER states, in an open one below the floor.
enums:
  kind:
    0: invalid
    1: segment
    2: key
    3: stream
    4: chunk
    5: checkpoint
    6: origin
    7: index
    8: footer
    9: tombstone
  kem:
    0x0010: dhkem_p256_hkdf_sha256
    0x647a: x_wing
  kdf:
    1: hkdf_sha256
  aead:
    2: aes_256_gcm
  scope:
    0: slot
    1: stream
  table:
    1: chunks
    2: streams
    3: keys
  tombstone_kind:
    1: deleted
    2: lost
    3: erased
  reason:
    1: max_age
    2: max_bytes
    3: min_free
    4: compacted
    5: erased
types:
  place:
    doc: A block, or one page that begins none (section 3.3). Figures of the places before it are carried along.
    params:
      - id: number
        type: u4
      - id: floor_before
        type: u8
      - id: leaves_before
        type: u8
      - id: footer_before
        type: u4
    seq:
      - id: block
        type: block
        if: is_block
      - id: nothing
        size: "left < 4096 ? left : 4096"
        if: not is_block
    instances:
      start:
        value: _io.pos
        doc: Evaluated first when the place is looked at, so it is where the place begins.
      left:
        value: _root._io.size - start
      is_block:
        value: "start >= 0 and left >= 128 ? (magic == 0x89485331 and peek.is_plausible) : false"
        doc: Section 3.2 but for the checksums. What looks like a block and is none is empty space.
      magic:
        pos: start
        type: u4be
      peek:
        pos: start
        type: peek
      is_footer:
        value: "is_block ? peek.kind == kind::footer : false"
      is_copy:
        value: start == 4096
      closes:
        value: "is_footer ? (start + 4096 == _root._io.size or leaves == block.body.as<footer_body>.leaf_count) : false"
      leaves:
        value: "leaves_before + (is_block and not is_copy and not is_footer ? 1 : 0)"
        doc: Blocks with a Merkle leaf so far (section 6).
      last_footer:
        value: "is_footer ? number : footer_before"
      floor:
        value: "number > 1 and _root.head_at != _root.none and is_block and peek.segment_id == _root.head.header.segment_id and peek.durable * 4096 > floor_before
          ? peek.durable * 4096 : floor_before"
        doc: The highest watermark that headers state so far (section 2.1).
  verdict:
    doc: What only the whole file shows of a place.
    params:
      - id: place
        type: place
    seq:
      - id: no_hole
        size: 0
        valid:
          expr: place.is_block or place.start >= _root.whole_until
        doc: Section 8. Below the floor, and in a sealed segment, a place without a block is damage.
      - id: no_second_head
        size: 0
        valid:
          expr: "place.start <= 4096 or not place.is_block ? true : place.peek.kind != kind::segment"
        doc: Section 3.3. A SEGMENT block is accepted nowhere behind 4096.
      - id: copies_agree
        size: 0
        valid:
          expr: "place.is_copy and place.is_block and _root.places[0].is_block and _root.whole_until > 0 ? place.block.header.header_crc32c == _root.head.header.header_crc32c and place.block.header.body_crc32c == _root.head.header.body_crc32c : true"
        doc: Section 2. The copy is equal byte for byte; two checksums stand for the bytes here.
      - id: watermark_behind
        size: 0
        valid:
          expr: "place.is_block and not place.is_copy ? place.peek.durable * 4096 <= place.start or place.peek.segment_id != _root.head.header.segment_id : true"
        doc: Section 2.1. A watermark does not lie beyond the start of the block that states it.
      - id: nothing_behind_footer
        size: 0
        valid:
          expr: not (_root.is_closed and place.is_block and place.footer_before != _root.none)
        doc: Section 2. A FOOTER is the end of a closed segment.
      - id: understood
        size: 0
        valid:
          expr: "place.is_block ? (place.peek.flags & 1) == 0 or place.peek.is_known : true"
        doc: Section 10. Of a critical block of an unknown type nobody knows what it changes.
      - id: leaves_counted
        size: 0
        valid:
          expr: "_root.is_sealed and place.is_footer ? place.leaves == place.block.body.as<footer_body>.leaf_count : true"
        doc: Section 4.8.
  peek:
    doc: The fields by which a block is told from what only begins like one.
    seq:
      - id: magic
        contents: [0x89, "HS1"]
      - id: kind
        type: u1
        enum: kind
      - id: flags
        type: u1
      - id: header_len
        type: u2
      - id: total_len
        type: u4
      - id: body_len
        type: u4
      - id: segment_id
        size: 16
      - id: block_no
        type: u8
      - id: unread
        size: 52
      - id: durable
        type: u4
    instances:
      start:
        value: _parent.start
      is_known:
        value: kind.to_i >= 1 and kind.to_i <= 9
      needs_extension:
        value: "kind == kind::stream or (kind == kind::chunk and (flags & 2) != 0)"
      is_plausible:
        value: "kind != kind::invalid
          and header_len >= (needs_extension ? 160 : 128)
          and total_len % 4096 == 0 and total_len >= 4096 and total_len <= 1048576
          and header_len + body_len <= total_len
          and ((kind != kind::segment and kind != kind::footer) or total_len == 4096)
          and start + total_len <= _root._io.size"
  block:
    doc: Section 3. A header, an extension, a body, and zeros to a multiple of 4096 bytes.
    seq:
      - id: header
        type: header
      - id: extension
        size: header.header_len - 128
        type:
          switch-on: header.kind
          cases:
            "kind::stream": stream_extension
            "kind::chunk": chunk_extension(header.is_hashed)
      - id: body
        size: header.body_len
        type:
          switch-on: header.kind
          cases:
            "kind::segment": segment_body
            "kind::key": key_body
            "kind::checkpoint": checkpoint_body
            "kind::origin": origin_body
            "kind::index": index_body
            "kind::footer": footer_body
            "kind::tombstone": tombstone_body
        doc: STREAM and CHUNK are sealed; types unknown to this version stay bytes.
      - id: padding
        type: u1
        valid: 0
        repeat: expr
        repeat-expr: header.total_len - header.header_len - header.body_len
  header:
    doc: Section 3.1, 128 bytes.
    seq:
      - id: magic
        contents: [0x89, "HS1"]
      - id: kind
        type: u1
        enum: kind
        valid:
          expr: _ != kind::invalid
      - id: flags
        type: u1
      - id: header_len
        type: u2
        valid:
          expr: "_ >= (kind == kind::stream or is_hashed ? 160 : 128)"
      - id: total_len
        type: u4
        valid:
          expr: "_ % 4096 == 0 and _ >= 4096 and _ <= 1048576 and ((kind != kind::segment and kind != kind::footer) or _ == 4096)"
      - id: body_len
        type: u4
        valid:
          expr: header_len + _ <= total_len
      - id: segment_id
        size: 16
        doc: The origin - the segment that the block was first written to.
      - id: block_no
        type: u8
      - id: stream_id
        size: 16
      - id: key_slot
        type: u4
      - id: reserved_60
        type: u4
      - id: first_s
        type: u8
      - id: last_s
        type: u8
      - id: stream_seq
        type: u8
      - id: reserved_88
        type: u4
      - id: durable
        type: u4
        doc: The origin's watermark in units of 4096 bytes.
      - id: tag
        size: 16
        doc: AES-GCM's tag of STREAM and CHUNK.
      - id: body_crc32c
        type: u4
      - id: reserved_116
        type: u8
      - id: header_crc32c
        type: u4
    instances:
      is_critical:
        value: (flags & 1) != 0
      is_hashed:
        value: kind == kind::chunk and (flags & 2) != 0
  stream_extension:
    seq:
      - id: commitment
        size: 32
        doc: Section 5.3.
      - id: unknown
        size-eos: true
  chunk_extension:
    params:
      - id: is_hashed
        type: bool
    seq:
      - id: body_hash
        size: 32
        if: is_hashed
        doc: Section 6.1. SHA-256 of the body as stored.
      - id: unknown
        size-eos: true
  segment_body:
    doc: Section 4.1.
    seq:
      - id: major
        type: u2
        valid: 1
      - id: minor
        type: u2
      - id: shard
        type: u4
      - id: incompat
        type: u8
        valid:
          expr: _ < 4
        doc: 1 ERASABLE, 2 STRONG_LEAF; any other bit is for a later reader.
      - id: ro_compat
        type: u8
      - id: compat
        type: u8
        doc: 1 COMPACTED.
      - id: node_id
        size: 16
      - id: run_id
        size: 16
      - id: prev_segment_id
        size: 16
      - id: chain_seq
        type: u8
      - id: created_s
        type: u8
      - id: node_key
        size: 32
      - id: unknown
        size-eos: true
  key_body:
    doc: Section 4.2.
    seq:
      - id: count
        type: u4
      - id: reserved
        type: u4
      - id: entries
        type: key_entry
        repeat: expr
        repeat-expr: count
      - id: unknown
        size-eos: true
  key_entry:
    seq:
      - id: entry_len
        type: u2
        valid:
          expr: _ >= 56 and _ % 8 == 0
      - id: fields
        size: entry_len - 2
        type: key_entry_fields
  key_entry_fields:
    seq:
      - id: kem
        type: u2
        enum: kem
      - id: kdf
        type: u2
        enum: kdf
      - id: aead
        type: u2
        enum: aead
      - id: slot
        type: u4
      - id: scope
        type: u1
        enum: scope
      - id: i
        type: u1
      - id: n
        type: u1
      - id: flags
        type: u1
        doc: 1 erasable.
      - id: stream_id
        size: 16
      - id: hint
        size: 16
      - id: enc_len
        type: u2
        valid:
          expr: "is_known_suite ? _ == (kem == kem::x_wing ? 1120 : 65) : true"
      - id: ct_len
        type: u2
        valid:
          expr: "is_known_suite ? _ == 80 : true"
      - id: reserved
        type: u4
      - id: enc
        size: enc_len
      - id: ct
        size: ct_len
    instances:
      is_known_suite:
        value: "(kem == kem::x_wing or kem == kem::dhkem_p256_hkdf_sha256) and kdf == kdf::hkdf_sha256 and aead == aead::aes_256_gcm"
  checkpoint_body:
    doc: Section 4.5.
    seq:
      - id: durable_upto
        type: u8
      - id: leaf_count
        type: u8
      - id: root
        size: 32
      - id: prev_root
        size: 32
      - id: time_s
        type: u8
      - id: flags
        type: u4
        doc: 1 prev_root is known.
      - id: head_count
        type: u4
      - id: signature
        size: 64
      - id: heads
        type: chain_head
        repeat: expr
        repeat-expr: head_count
      - id: unknown
        size-eos: true
  chain_head:
    seq:
      - id: run_id
        size: 16
      - id: shard
        type: u4
      - id: flags
        type: u4
        doc: 1 it had a footer, 2 that was RECOVERED.
      - id: chain_seq
        type: u8
      - id: segment_id
        size: 16
      - id: durable_upto
        type: u8
      - id: leaf_count
        type: u8
      - id: root
        size: 32
  origin_body:
    doc: Section 4.6.
    seq:
      - id: segment_id
        size: 16
      - id: node_id
        size: 16
      - id: run_id
        size: 16
      - id: shard
        type: u4
      - id: flags
        type: u4
      - id: chain_seq
        type: u8
      - id: first_block_no
        type: u8
      - id: last_block_no
        type: u8
      - id: unknown
        size-eos: true
  index_body:
    doc: Section 4.7.
    seq:
      - id: kind
        type: u4
        enum: table
      - id: row_len
        type: u4
        valid:
          expr: "_ >= (kind == table::chunks ? 48 : (kind == table::streams ? 64 : (kind == table::keys ? 24 : 0)))"
      - id: row_count
        type: u4
      - id: part
        type: u4
      - id: rows
        size: row_len
        type:
          switch-on: kind
          cases:
            "table::chunks": chunk_row
            "table::streams": stream_row
            "table::keys": key_row
        repeat: expr
        repeat-expr: "kind == table::chunks or kind == table::streams or kind == table::keys ? row_count : 0"
      - id: unknown
        size-eos: true
  chunk_row:
    seq:
      - id: offset
        type: u8
      - id: total_len
        type: u4
      - id: stream_row
        type: u4
        doc: 0xffffffff for a STREAM block that was lost in a crash.
      - id: first_s
        type: u8
      - id: last_s
        type: u8
      - id: block_no
        type: u8
      - id: stream_seq
        type: u8
      - id: unknown
        size-eos: true
  stream_row:
    seq:
      - id: stream_id
        size: 16
      - id: offset
        type: u8
      - id: slot
        type: u4
      - id: flags
        type: u4
      - id: chunks
        type: u8
      - id: first_s
        type: u8
      - id: last_s
        type: u8
      - id: bytes
        type: u8
      - id: unknown
        size-eos: true
  key_row:
    seq:
      - id: offset
        type: u8
      - id: total_len
        type: u4
      - id: entry_count
        type: u4
      - id: reserved
        type: u8
      - id: unknown
        size-eos: true
  footer_body:
    doc: Section 4.8.
    seq:
      - id: flags
        type: u4
        valid:
          expr: (_ & 3) == 1 or (_ & 3) == 2
        doc: 1 SEALED, 2 RECOVERED, 4 SIGNED.
      - id: reserved
        type: u4
      - id: chunks
        type: range
      - id: streams
        type: range
      - id: keys
        type: range
      - id: leaf_count
        type: u8
      - id: root
        size: 32
      - id: prev_root
        size: 32
      - id: durable_upto
        type: u8
      - id: data_end
        type: u8
      - id: chunk_count
        type: u8
      - id: first_s
        type: u8
      - id: last_s
        type: u8
      - id: signed_leaf_count
        type: u8
      - id: closed_s
        type: u8
      - id: signature
        size: 64
      - id: unknown
        size-eos: true
    instances:
      is_sealed:
        value: (flags & 1) != 0
      is_recovered:
        value: (flags & 2) != 0
      is_signed:
        value: (flags & 4) != 0
  range:
    doc: INDEX blocks of one kind, or 0, 0.
    seq:
      - id: offset
        type: u8
      - id: len
        type: u8
  tombstone_body:
    doc: Section 4.9.
    seq:
      - id: kind
        type: u4
        enum: tombstone_kind
      - id: count
        type: u4
      - id: time_s
        type: u8
      - id: signature
        size: 64
      - id: entries
        type: tombstone_entry(kind)
        repeat: expr
        repeat-expr: "kind == tombstone_kind::deleted or kind == tombstone_kind::erased ? count : 0"
      - id: unknown
        size-eos: true
  tombstone_entry:
    params:
      - id: kind
        type: u4
        enum: tombstone_kind
    seq:
      - id: segment_id
        size: 16
      - id: run_id
        size: 16
      - id: shard
        type: u4
      - id: reason
        type: u4
        enum: reason
        if: kind == tombstone_kind::deleted
      - id: slot
        type: u4
        if: kind == tombstone_kind::erased
      - id: chain_seq
        type: u8
      - id: root
        size: 32
