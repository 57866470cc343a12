// docs/segment.ksy, compiled and run: a segment's structure as Kaitai Struct sees it.
//
// The compiler and its runtime come from a folder outside the tree (npm ci, see package.json), named by the
// environment: HARBORSEAL_NODE_MODULES is the folder that holds node_modules.

import { readFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import { join, resolve } from 'node:path';

const home = resolve(process.env.HARBORSEAL_NODE_MODULES ?? '.');
const require = createRequire(join(home, 'package.json'));

const CHUNK = 4;

/** Compiles a description; the class that reads by it. */
export async function compile(path) {
  const description = require('yaml').parse(readFileSync(path, 'utf8'));
  const files = await require('kaitai-struct-compiler').compile('javascript', description, null, false);
  const module = { exports: {} };
  new Function('require', 'module', 'exports', Object.values(files)[0])(require, module, module.exports);
  return module.exports.HarborsealSegment ?? module.exports;
}

/** What the description reads of a file; throws where it refuses the file. */
export function read(Segment, bytes) {
  const KaitaiStream = require('kaitai-struct/KaitaiStream');
  const data = bytes.buffer.slice(bytes.byteOffset, bytes.byteOffset + bytes.byteLength);
  const file = new Segment(new KaitaiStream(data));
  const { header } = file.head;
  const { segment, footer } = file;
  return {
    segment_id: hex(header.segmentId),
    node_id: hex(segment.nodeId),
    run_id: hex(segment.runId),
    shard: segment.shard,
    chain_seq: segment.chainSeq,
    prev_segment_id: hex(segment.prevSegmentId),
    created_s: segment.createdS,
    incompat: segment.incompat,
    ro_compat: segment.roCompat,
    compat: segment.compat,
    state: file.isSealed ? 'sealed' : file.isRecovered ? 'recovered' : 'open',
    file_len: bytes.length,
    // What a closed segment says of itself; an open one is for those to sum up who can tell its blocks from others.
    ...(footer && { data_end: footer.dataEnd, leaf_count: footer.leafCount, root: hex(footer.root) }),
    // One SEGMENT block of the two: the one that counts.
    blocks: file.places.filter((place, at) => place.isBlock && (at > 1 || at === file.headAt)).map(row),
  };
}

function row({ start, block: { header, body } }) {
  const erased = header.kind === CHUNK && body.length > 0 && body.every((byte) => byte === 0);
  return {
    offset: start,
    type: header.kind,
    flags: header.flags,
    block_no: header.blockNo,
    total_len: header.totalLen,
    body_len: header.bodyLen,
    segment_id: hex(header.segmentId),
    stream_id: hex(header.streamId),
    stream_seq: header.streamSeq,
    erased,
  };
}

function hex(bytes) {
  return Buffer.from(bytes).toString('hex');
}
