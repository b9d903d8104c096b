"""Checkpoints kept outside the database: what they claim about a log, and whether it holds."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from ledger.errors import BadNote
from ledger.evidence import checkpoint_file
from ledger.evidence.merkle import Frontier
from ledger.evidence.signed_note import Verifier, open_checkpoint
from ledger.verify.outcome import Report


@dataclass(frozen=True, slots=True)
class Claim:
    """The claim of a checkpoint: the first `size` events of a log have `root`."""

    size: int
    root: bytes
    where: str
    """The file that holds the checkpoint."""
    is_trusted: bool


def read_claims(
    path: Path, trusted: Sequence[Verifier], report: Report
) -> Iterator[tuple[str, Claim]]:
    """Yield source and claim of each checkpoint in a file; report notes that are not valid."""
    for note in checkpoint_file.read(path):
        try:
            checkpoint, signers = open_checkpoint(note, trusted)
        except BadNote as error:
            report.add("fail", "against", f"{path}: {error}", "take an unchanged copy of the file")
            continue
        if checkpoint.source:
            yield (
                checkpoint.source,
                Claim(checkpoint.size, checkpoint.root, str(path), bool(signers)),
            )


class OpenClaims:
    """The claims about a log that its tree has not reached yet."""

    def __init__(self, claims: Iterable[Claim]) -> None:
        self._by_size: dict[int, list[Claim]] = {}
        for claim in claims:
            self._by_size.setdefault(claim.size, []).append(claim)
        self.agreed = 0
        """The largest size whose claims hold."""

    def contradiction(self, tree: Frontier) -> Claim | None:
        """Check the claims of the tree's size; return the first that does not hold."""
        for claim in self._by_size.pop(tree.size, ()):
            if claim.root != tree.root():
                return claim
            self.agreed = tree.size
        return None

    def beyond(self) -> list[Claim]:
        """Return the claims that the tree has not reached, the smallest first."""
        return [claim for size in sorted(self._by_size) for claim in self._by_size[size]]
