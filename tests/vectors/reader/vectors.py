"""Every vector against its JSON: what a reader must find in it (tests/vectors/README.md)."""

import json
from pathlib import Path

from . import structure
from .keys import Identity
from .sets import Set


class Keys:
    """tests/vectors/keys.json: fixed identities and releases."""

    def __init__(self, folder):
        stated = json.loads((folder / "keys.json").read_text(encoding="utf-8"))
        self.identities = {name: Identity(text["secret"]) for name, text in stated["identities"].items()}
        self.releases = releases(stated["releases"])


def releases(rows):
    """(segment_id, slot) -> E from a list of {segment_id, slot, e}."""
    return {(bytes.fromhex(row["segment_id"]), row["slot"]): bytes.fromhex(row["e"]) for row in rows}


def check(folder):
    """Reads every vector under `folder`; yields (name, [differences])."""
    folder = Path(folder)
    known = Keys(folder)
    for kind in ("good", "bad"):
        for path in sorted((folder / kind).glob("*.json")):
            vector = json.loads(path.read_text(encoding="utf-8"))
            yield f"{kind}/{path.stem}", list(_differences(path.parent, vector, known, kind))


def _differences(folder, vector, known, kind):
    contents = [(folder / name).read_bytes() for name in vector["files"]]
    stated = known.releases if vector.get("releases") else {}
    whole = True if len(contents) > 1 else None  # one file alone says nothing of its chain
    read = Set(contents, whole)
    if "structure" in vector:
        yield from _differ("structure", vector["structure"],
                           [structure.structure(r) for r in read.reports if r is not None])
    for name, expected in vector.get("opened", {}).items():
        yield from _differ(f"opened by {name}", expected,
                           structure.opened_row(*Set(contents, whole).open(known.identities[name], stated)))
    if vector.get("with_identity"):
        read.open(known.identities[vector["with_identity"]], stated)
    rows = [structure.finding_row(vector["files"][number], finding)
            for number, findings in enumerate(read.findings) for finding in findings]
    if "findings" in vector:
        yield from _differ("findings", _sorted(vector["findings"]), _sorted(rows))
    if kind == "bad":
        yield from _first_error(vector, rows)


def _first_error(vector, rows):
    """§13: the error is the one of the lowest offset, and of several there the first in the table; rows stand in that
    order within each file."""
    if "python" not in vector["refused_by"]:
        return
    expected = vector["error"]
    errors = [row for row in rows if row["severity"] != "note" or row["class"] == expected["class"]]
    first = {key: value for key, value in errors[0].items() if key != "severity"} if errors else None
    yield from _differ("error", expected, first)


def _sorted(rows):
    return sorted((json.dumps(row, sort_keys=True) for row in rows))


def _differ(what, expected, found):
    """Where two values part: by key and by row, so that a line names one thing."""
    if isinstance(expected, dict) and isinstance(found, dict):
        for key in sorted(expected.keys() | found.keys()):
            yield from _differ(f"{what}.{key}", expected.get(key), found.get(key))
    elif isinstance(expected, list) and isinstance(found, list) and len(expected) == len(found):
        for number, (want, have) in enumerate(zip(expected, found)):
            yield from _differ(f"{what}[{number}]", want, have)
    elif isinstance(expected, list) and isinstance(found, list):
        yield from (f"{what}: expected and not found: {row}" for row in expected if row not in found)
        yield from (f"{what}: found and not expected: {row}" for row in found if row not in expected)
        yield f"{what}: {len(found)} rows, expected {len(expected)}"
    elif expected != found:
        yield f"{what}: expected {expected}, found {found}"
