"""What a reader says about a file: the words of FORMAT.md §13, in the order of its table."""

from dataclasses import dataclass

DAMAGE, UNSUPPORTED, NOTE = "damage", "unsupported", "note"

_NOTES = {
    "never_begun", "needs_release", "erased", "skipped", "lost", "hole", "unfinished", "chunks_lost",
    "went_with_hole", "unsigned", "not_truncated", "segments_deleted", "segments_not_given", "repaired_since",
}
CLASSES = (
    "not_a_segment never_begun head_lost damaged unsupported segment_copy zeros broken_block foreign_block "
    "misplaced_block malformed_body block_number watermark_ahead key_missing recipients feature_unstated "
    "stream_missing stream_repeated slot_differs chunks_missing stream_seq_repeated body_hash erased_unstated "
    "leaf_count root signature footer index after_footer unclosed commitment not_authentic malformed_plaintext "
    "chunks_so_far needs_release erased skipped lost hole unfinished chunks_lost went_with_hole unsigned "
    "not_truncated node_differs not_attested "
    "segments_missing previous_differs same_place root_since head_missing segments_deleted "
    "segments_not_given repaired_since"
).split()
_RANK = {name: rank for rank, name in enumerate(CLASSES)}


@dataclass(frozen=True)
class Finding:
    """One breach or note. `cause` only of broken_block; `what` is for people and never compared."""

    name: str
    offset: int
    cause: str | None = None
    what: str = ""

    @property
    def severity(self):
        if self.name == "unsupported":
            return UNSUPPORTED
        return NOTE if self.name in _NOTES else DAMAGE

    @property
    def rank(self):
        """The order in which findings are told: by offset, then by §13's table."""
        return (self.offset, _RANK[self.name])


class Refused(Exception):
    """The file cannot be read at all; the finding says why."""

    def __init__(self, finding):
        super().__init__(finding.name)
        self.finding = finding
