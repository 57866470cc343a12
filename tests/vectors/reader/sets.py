"""Several segments read together: chains, duplicates, erasures, and one identity's streams over all of them
(FORMAT.md §3.3, §4.5, §4.9, §8)."""

from . import layout, scan as scanning, verify as verifying
from .findings import Finding, Refused
from .layout import DELETED, ERASED
from .opening import Ratchets, open_segment


class Set:
    """The files of one call, each with its findings."""

    def __init__(self, contents, whole=False):
        """`contents`: the bytes of each file. `whole`: they are all that the node has, so what is missing before the
        first of a chain is missing."""
        self.reports = []  # Report, or None where the file is refused
        self.findings = []  # one list per file
        self._whole = whole
        for data in contents:
            try:
                report = verifying.verify(scanning.scan(data))
            except Refused as refused:
                self.reports.append(None)
                self.findings.append([refused.finding])
                continue
            self.reports.append(report)
            self.findings.append(list(report.findings))
        self._by_id = {}
        for number, report in enumerate(self.reports):
            if report is not None:
                self._by_id.setdefault(report.segment_id, []).append(number)
        self._erasures()
        self._chains()
        self.sort()

    def sort(self):
        for findings in self.findings:
            findings.sort(key=lambda finding: finding.rank)

    def _say(self, number, finding):
        if finding not in self.findings[number]:
            self.findings[number].append(finding)

    def _read(self):
        return [(number, report) for number, report in enumerate(self.reports) if report is not None]

    def _stated(self, kind):
        """(node_id, entry) of every signed TOMBSTONE of this kind in the set."""
        return [(report.head.node_id, entry) for _, report in self._read()
                for _, tombstone in report.tombstones if tombstone.kind == kind for entry in tombstone.entries]

    def _erasures(self):
        """Which erased chunks a TOMBSTONE(erased) of their node speaks of (§4.9)."""
        stated = {(node, entry.segment_id, entry.what) for node, entry in self._stated(ERASED)}
        for number, report in self._read():
            for block in report.erased:
                node = report.node_of(block.segment_id)
                told = (node, block.segment_id, block.slot) in stated
                self._say(number, Finding("erased" if told else "erased_unstated", block.offset))

    def _chains(self):
        """prev_segment_id, chain_seq and prev_root link up; heads are there (§8)."""
        deleted = {(node, entry.segment_id): entry for node, entry in self._stated(DELETED)}
        deleted_places = {(node, entry.run_id, entry.shard, entry.chain_seq) for node, entry in self._stated(DELETED)}
        chains = {}
        for number, report in self._read():
            if not report.head.compat & layout.COMPACTED:
                place = (report.head.node_id, report.head.run_id, report.head.shard)
                chains.setdefault(place, []).append((report.head.chain_seq, number))
        for place, members in chains.items():
            members.sort()
            self._chain(place, members, deleted_places)
        for number, report in self._read():
            self._heads(number, report, deleted)

    def _chain(self, place, members, deleted_places):
        before = None
        for seq, number in members:
            expected = 0 if before is None else before[0] + 1
            if before is not None and seq == before[0]:
                if self.reports[number].segment_id != self.reports[before[1]].segment_id:
                    self._say(number, Finding("same_place", 0))
                continue
            gone = [(*place, missing) in deleted_places for missing in range(expected, min(seq, expected + 4096))]
            if gone and all(gone):
                self._say(number, Finding("segments_deleted", 0))
            elif gone:
                unknown = before is None and not self._whole
                self._say(number, Finding("segments_not_given" if unknown else "segments_missing", 0))
            elif before is not None:
                self._link(self.reports[before[1]], number, self.reports[number])
            before = (seq, number)

    def _link(self, previous, number, report):
        """Two neighbours of a chain."""
        if report.head.prev_segment_id != previous.segment_id:
            self._say(number, Finding("previous_differs", 0))
            return
        if previous.footer is None:
            return
        for offset, root in _stated_roots(report):
            if root != previous.root:
                name = "repaired_since" if previous.repaired else "root_since"
                self._say(number, Finding(name, offset))

    def _heads(self, number, report, deleted):
        """The chain ends that CHECKPOINTs name (§4.5)."""
        for block, checkpoint, signed in report.checkpoints:
            for head in checkpoint.heads:
                if not signed:
                    continue
                given = self._by_id.get(head.segment_id)
                if given is None:
                    if (report.head.node_id, head.segment_id) in deleted:
                        continue
                    if self._whole:
                        self._say(number, Finding("head_missing", block.offset))
                    continue
                other = self.reports[given[0]]
                if other.footer is not None and head.flags & 1 and other.root != head.root:
                    name = "repaired_since" if other.repaired else "root_since"
                    self._say(number, Finding(name, block.offset))

    def open(self, identity, releases):
        """The identity's streams over all files: (origin, stream_id) -> OpenedStream, each block taken once (§3.3)."""
        ratchets, streams, opened_all = Ratchets(), {}, []
        in_chain_order = sorted(self._read(), key=lambda pair: pair[1].head.chain_seq)
        for number, report in in_chain_order:
            opened = open_segment(report, identity, releases, ratchets)
            opened_all.append(opened)
            self.findings[number] += opened.findings
            for name, stream in opened.streams.items():
                known = streams.setdefault(name, stream)
                for block_no, chunk in stream.chunks.items():
                    known.chunks.setdefault(block_no, chunk)
            for stream in opened.streams.values():
                self._say_counts(number, stream)
        self.sort()
        return streams, opened_all

    def _say_counts(self, number, stream):
        """chunks_so_far goes on with stream_seq within an origin (§4.4)."""
        base = None
        for seq, offset, chunk in sorted(stream.chunks.values(), key=lambda found: found[0]):
            if base is not None and chunk.chunks_so_far - seq != base:
                self._say(number, Finding("chunks_so_far", offset))
            base = chunk.chunks_so_far - seq


def _stated_roots(report):
    """Where a segment states the root of the one before it."""
    stated = [(block.offset, checkpoint.prev_root) for block, checkpoint, _ in report.checkpoints
              if checkpoint.prev_root_known]
    if report.footer is not None and any(report.footer.prev_root):
        stated.append((report.footer_block.offset, report.footer.prev_root))
    return stated
