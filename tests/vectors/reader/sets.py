"""Several segments read together: chains, duplicates, erasures, and one identity's streams over all of them
(FORMAT.md §3.3, §4.5, §4.9, §8)."""

from . import counting, layout, scan as scanning, verify as verifying
from .findings import Finding, Refused
from .layout import DELETED, ERASED, RECOVERED, SIGNED
from .opening import Ratchets, open_segment


class Set:
    """The files of one call, each with its findings."""

    def __init__(self, contents, whole=False):
        """`contents`: the bytes of each file. `whole`: they are all that the node has, so what is missing before the
        first of a chain is missing; None: say nothing of chains."""
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
        if whole is not None:
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
        """prev_segment_id and chain_seq link up, and roots stated later are those that stand (§8). What is said of a
        whole segment stands at its offset 0."""
        gone = {(node, entry.run_id, entry.shard, entry.chain_seq) for node, entry in self._stated(DELETED)}
        gone_ids = {(node, entry.segment_id) for node, entry in self._stated(DELETED)}
        chains = {}
        members = [(number, report) for number, report in self._read() if not report.head.compat & layout.COMPACTED]
        # An unused segment gives way to any other at its place.
        members.sort(key=lambda member: (member[1].head.chain_seq, member[1].unused, member[0]))
        for number, report in members:
            chain = chains.setdefault((report.head.run_id, report.head.shard), [])
            if not (report.unused and chain and chain[-1][0] == report.head.chain_seq):
                chain.append((report.head.chain_seq, number))
        for chain in chains.values():
            self._chain(chain, gone)
        for number, report in self._read():
            self._roots(report)
            self._heads(number, report, gone_ids)

    def _chain(self, members, gone):
        before = None  # (chain_seq, number)
        node = self.reports[members[0][1]].head.node_id
        for seq, number in members:
            report = self.reports[number]
            if report.head.node_id != node:
                self._say(number, Finding("node_differs", 0))
            if before is not None and seq == before[0]:
                if report.segment_id != self.reports[before[1]].segment_id:
                    self._say(number, Finding("same_place", 0))
                continue
            first = 0 if before is None else before[0] + 1
            if seq == 0 and any(report.head.prev_segment_id):
                self._say(number, Finding("previous_differs", 0))
            elif seq > first:
                self._gap(number, report, first, gone, before is None)
            elif before is not None and report.head.prev_segment_id != self.reports[before[1]].segment_id:
                self._say(number, Finding("previous_differs", 0))
            before = (seq, number)

    def _gap(self, number, report, first, gone, begins):
        """The chain jumps, or does not begin at 0, before this segment."""
        place = (report.head.node_id, report.head.run_id, report.head.shard)
        # A chain_seq is any number that somebody wrote: there are not more tombstones than were read.
        missing = range(first, report.head.chain_seq)
        if report.head.chain_seq - first <= len(gone) and all((*place, seq) in gone for seq in missing):
            self._say(number, Finding("segments_deleted", 0))
        else:
            self._say(number, Finding("segments_not_given" if begins and not self._whole else "segments_missing", 0))

    def _roots(self, report):
        """The final root of the segment before, as this one states it (§4.5, §4.8)."""
        stated = {checkpoint.prev_root for _, checkpoint, signed in report.checkpoints
                  if signed and checkpoint.prev_root_known}
        if report.footer is not None and any(report.footer.prev_root):
            stated.add(report.footer.prev_root)
        for root in stated:
            self._compare_root(report.head.prev_segment_id, root)

    def _compare_root(self, segment_id, root):
        given = self._by_id.get(segment_id, ())
        roots = [self.reports[number].footer and self.reports[number].footer.root for number in given]
        if given and root not in roots:
            footer = self.reports[given[0]].footer
            repaired = footer is not None and footer.flags & (RECOVERED | SIGNED) == RECOVERED | SIGNED
            self._say(given[0], Finding("repaired_since" if repaired else "root_since", 0))

    def _heads(self, number, report, gone_ids):
        """The chain ends that a run found when it began, in its signed CHECKPOINTs (§4.5)."""
        for _, checkpoint, signed in report.checkpoints:
            for head in checkpoint.heads if signed else ():
                if head.segment_id not in self._by_id:
                    if self._whole and (report.head.node_id, head.segment_id) not in gone_ids:
                        self._say(number, Finding("head_missing", 0))
                elif head.flags & 1:
                    self._compare_root(head.segment_id, head.root)

    def open(self, identity, releases):
        """The identity's streams over all files: (origin, stream_id) -> OpenedStream, each block taken once (§3.3)."""
        ratchets, streams, opened_all = Ratchets(), {}, {}
        in_chain_order = sorted(self._read(), key=lambda pair: pair[1].head.chain_seq)
        for number, report in in_chain_order:
            opened = open_segment(report, identity, releases, ratchets)
            opened_all[number] = opened
            self.findings[number] += opened.findings
            for name, stream in opened.streams.items():
                known = streams.setdefault(name, stream)
                for block_no, chunk in stream.chunks.items():
                    known.chunks.setdefault(block_no, chunk)
        for number, finding in list(counting.breaches(self.reports, self.findings, opened_all)):
            self._say(number, finding)
        self.sort()
        return streams, list(opened_all.values())
