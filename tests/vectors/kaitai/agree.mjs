// Does docs/segment.ksy see what other readers see?
//
//   node agree.mjs KSY vectors FOLDER       every vector against its JSON
//   node agree.mjs KSY structure FILE...    print each file's structure as JSON, one line for all
//
// A description cannot compute a checksum, so in a gap it may see blocks that others refuse. Nothing else may differ.

import { readFileSync, readdirSync } from 'node:fs';
import { join } from 'node:path';

import { compile, read } from './segment.mjs';

const [ksy, command, ...names] = process.argv.slice(2);
const Segment = await compile(ksy);

if (command === 'structure') {
  console.log(JSON.stringify(names.map((name) => attempt(readFileSync(name)))));
} else if (command === 'vectors' && names.length === 1) {
  process.exitCode = checkVectors(names[0]);
} else {
  console.error('usage: node agree.mjs KSY vectors FOLDER | structure FILE...');
  process.exitCode = 2;
}

/** The structure, or {refused: why}. */
function attempt(bytes) {
  try {
    return read(Segment, bytes);
  } catch (error) {
    return { refused: String(error.message ?? error) };
  }
}

function checkVectors(folder) {
  let count = 0;
  let differing = 0;
  for (const kind of ['good', 'bad']) {
    for (const name of readdirSync(join(folder, kind)).filter((name) => name.endsWith('.json')).sort()) {
      const vector = JSON.parse(readFileSync(join(folder, kind, name), 'utf8'));
      const found = vector.files.map((file) => attempt(readFileSync(join(folder, kind, file))));
      const told = kind === 'good' ? goodDiffers(vector, found) : badDiffers(vector, found);
      told.forEach((line) => console.log(`${vector.name}: ${line}`));
      count += 1;
      differing += told.length > 0;
    }
  }
  console.log(`${count} vectors, ${count - differing} as stated, ${differing} not`);
  return count > 0 && differing === 0 ? 0 : 1;
}

function badDiffers(vector, found) {
  const refuses = found.some((structure) => structure.refused);
  const stated = vector.refused_by.includes('kaitai');
  if (refuses === stated) return [];
  return [stated ? 'it must refuse it, and does not' : 'it refuses it, which refused_by does not state'];
}

function goodDiffers(vector, found) {
  return (vector.structure ?? []).flatMap((expected, at) => differences(expected, found[at]));
}

/** What a structure has otherwise than expected: outside of the gaps, everything must be the same. */
function differences(expected, found) {
  if (found.refused) return [`refused: ${found.refused}`];
  const told = [];
  for (const [key, value] of Object.entries(found)) {
    if (key !== 'blocks' && value !== expected[key]) told.push(`${key}: expected ${expected[key]}, found ${value}`);
  }
  const inGap = ({ offset }) => expected.gaps.some((gap) => offset >= gap.offset && offset < gap.offset + gap.len);
  const blocks = found.blocks.filter((block) => !inGap(block));
  for (let at = 0; at < Math.max(blocks.length, expected.blocks.length); at += 1) {
    const [want, have] = [expected.blocks[at], blocks[at]];
    const differs = !want || !have || Object.keys(have).some((key) => have[key] !== want[key]);
    if (differs) return [...told, `block ${at}: expected ${JSON.stringify(want)}, found ${JSON.stringify(have)}`];
  }
  return told;
}
