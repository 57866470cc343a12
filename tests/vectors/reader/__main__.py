"""The command line: python3 -m reader COMMAND …

Exit status: 0 nothing is wrong · 1 damage, something unsupported, or a vector that differs · 2 usage or input.
"""

import argparse
import json
import mmap
import sys

from . import crc32c, structure, vectors
from .findings import NOTE
from .keys import BadKey, Identity
from .sets import Set


def main():
    arguments = _parser().parse_args()
    try:
        return arguments.run(arguments)
    except (OSError, BadKey) as error:
        print(f"reader: {error}", file=sys.stderr)
        return 2
    except (KeyError, ValueError, TypeError) as error:
        # Only JSON that people wrote (releases, vectors) can still be wrong here: segments give findings.
        print(f"reader: {type(error).__name__}: {error}", file=sys.stderr)
        return 2


def _parser():
    parser = argparse.ArgumentParser(prog="python3 -m reader", description="Reads Harborseal segments.")
    commands = parser.add_subparsers(required=True)
    command = commands.add_parser("structure", help="print what a segment holds, as JSON")
    command.add_argument("files", nargs=1, metavar="FILE")
    command.set_defaults(run=_structure)
    command = commands.add_parser("verify", help="check segments, and how they follow each other")
    _takes_files(command)
    command.add_argument("--json", action="store_true", help="print findings as one JSON object")
    command.set_defaults(run=_verify)
    command = commands.add_parser("packets", help="list the packets that an identity opens")
    _takes_files(command)
    command.set_defaults(run=_packets)
    command = commands.add_parser("agree", help="print all that readers must agree on, as one JSON object")
    _takes_files(command)
    command.set_defaults(run=_agree)
    command = commands.add_parser("check-vectors", help="compare every vector with its JSON")
    command.add_argument("folder")
    command.set_defaults(run=_check_vectors)
    return parser


def _takes_files(command):
    command.add_argument("files", nargs="+", metavar="FILE")
    command.add_argument("--identity", metavar="FILE", help="also open what is for this identity")
    command.add_argument("--releases", metavar="FILE", help="JSON list of {segment_id, slot, e}, all in hexadecimal")
    command.add_argument("--unwritten", action="store_true", help="no process writes them: open ones are unclosed")
    command.add_argument("--whole", action="store_true", help="these are all segments that there should be")
    command.add_argument("--apart", action="store_true", help="say nothing of how the files follow each other")


def _content(path):
    """The bytes of a file, mapped: a segment may be larger than memory."""
    with open(path, "rb") as file:
        file.seek(0, 2)
        return mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) if file.tell() else b""


def _load(arguments):
    """The set of files, verified and with the identity's streams (None without an identity)."""
    read = Set([_content(path) for path in arguments.files], None if arguments.apart else arguments.whole)
    if arguments.unwritten:
        for report, findings in zip(read.reports, read.findings):
            findings += report.unclosed() if report else []
    if arguments.identity is None:
        read.sort()
        return read, None, []
    releases = {}
    if arguments.releases:
        with open(arguments.releases, encoding="utf-8") as file:
            releases = vectors.releases(json.load(file))
    streams, opened = read.open(Identity.from_file(arguments.identity), releases)
    return read, streams, opened


def _rows(arguments, read):
    return [structure.finding_row(path, finding)
            for path, findings in zip(arguments.files, read.findings) for finding in findings]


def _status(read):
    return int(any(finding.severity != NOTE for findings in read.findings for finding in findings))


def _structure(arguments):
    read = Set([_content(arguments.files[0])])
    print(json.dumps({
        "structure": [structure.structure(report) for report in read.reports if report],
        "findings": _rows(arguments, read),
    }, indent=1))
    return _status(read)


def _verify(arguments):
    read, streams, _ = _load(arguments)
    rows = _rows(arguments, read)
    if arguments.json:
        print(json.dumps({"ok": _status(read) == 0, "findings": rows}))
        return _status(read)
    for row in rows:
        cause = f" ({row['cause']})" if "cause" in row else ""
        print(f"{row['file']}: {row['severity']} at {row['offset']}: {row['class']}{cause}")
    opened = "" if streams is None else f", {len(streams)} streams opened"
    print(f"{len(arguments.files)} files, {len(rows)} findings{opened}")
    return _status(read)


def _packets(arguments):
    read, streams, _ = _load(arguments)
    for _, stream in sorted((streams or {}).items()):
        for packet in stream.packets():
            kind = "rtcp" if packet.rtcp else "rtp"
            print(f"{packet.arrival_ns} {kind} {stream.text.ssrc:08x} {stream.text.camera_id} {packet.data.hex()}")
    return _status(read)


def _agree(arguments):
    read, streams, opened = _load(arguments)
    answer = {
        "structure": [structure.structure(report) for report in read.reports if report],
        "findings": _rows(arguments, read),
    }
    if streams is not None:
        answer["opened"] = structure.opened_row(streams, opened)
        answer["entries"] = sum(one.entries for one in opened)
        answer["hinted"] = sum(one.hinted for one in opened)
    print(json.dumps(answer))
    return 0


def _check_vectors(arguments):
    crc32c.selftest()
    count, differing = 0, 0
    for name, differences in vectors.check(arguments.folder):
        count += 1
        differing += bool(differences)
        for line in differences:
            print(f"{name}: {line}")
    print(f"{count} vectors, {count - differing} as stated, {differing} not")
    return int(differing > 0 or count == 0)


if __name__ == "__main__":
    sys.exit(main())
