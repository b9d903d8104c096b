"""`ledger verify FILE`: checks an audit pack with nothing but the pack; no database, no service.

Everything is recomputed from the events in it: hashes, density, identities, the Merkle root under
the signed checkpoint, and the books, which this program folds once more and compares byte for byte.
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from ledger import registry
from ledger.books import fold_version
from ledger.errors import BadNote, InvalidRequest, Tampered
from ledger.evidence import checkpoint_file as sealfile
from ledger.evidence.keys import read_trusted
from ledger.evidence.signed_note import Checkpoint, Verifier, open_checkpoint
from ledger.export.offline_fold import OfflineFold, OfflineStore
from ledger.export.pack_file import SUM_OF_SUMS, SUMS, PackReader, Parts, open_pack
from ledger.export.pack_manifest import (
    ABOUT,
    KEYS,
    About,
    Packed,
    books_folder,
    events_folder,
    note_name,
    read_about,
    small_members,
)
from ledger.terminal.progress import Progress
from ledger.verify.log import Claim
from ledger.verify.outcome import Checked, Verdict, tell
from ledger.verify.pack_checks import BooksCheck, EventsCheck, books_of, check_journal, part_names

LISTED_MAX: Final = 20
KEEP: Final = "keep the pack as it is, ask for an untouched one, and compare the two"
ELSEWHERE: Final = "compare it with a key that you had from elsewhere (--key, --trusted FILE)"
NOTHING_ELSE: Final = "the pack is whole, and its books are what its events say"


@dataclass(frozen=True, slots=True)
class PackOptions:
    """What to verify a pack against."""

    against: tuple[Path, ...] = ()
    trusted: Path | None = None
    keys: tuple[str, ...] = ()
    skip_books: bool = False
    json: bool = False


def run(path: Path, options: PackOptions) -> int:
    """Verify a pack and print what was found; return the exit status."""
    quiet = options.json and not sys.stderr.isatty()
    with Progress.shown(quiet=quiet) as progress, open_pack(path) as file:
        found = PackCheck(PackReader(file), options, progress).examine()
    return tell(found, NOTHING_ELSE + _proviso(found), json=options.json)


def _proviso(found: Sequence[Checked]) -> str:
    return "".join(f"; {c.found}: {c.advice}" for c in found if c.name == "keys" and c.advice)


@dataclass(slots=True)
class PackCheck:
    """One check of one pack."""

    reader: PackReader
    options: PackOptions
    progress: Progress
    found: list[Checked] = field(default_factory=list)
    keys: list[Verifier] = field(default_factory=list)
    """Whose signatures count: those named by the caller, else the pack's own."""
    _known: set[str] = field(default_factory=set)
    """The members that there should be."""

    def examine(self) -> list[Checked]:
        """Check everything; what could not be checked is INCOMPLETE."""
        trusted = self._trusted()
        claims = self._claims(trusted)
        try:
            self._check_container()
            about = read_about(self.reader.read(ABOUT))
            self._load_keys(trusted)
            is_same = self._check_version(about)
        except Tampered as error:
            self._fail(error)
            return self.found
        self._known = small_members(about.sources) | {SUMS, SUM_OF_SUMS}
        for each in about.sources:
            self._check_source(each, claims.pop(each.source, []), is_same=is_same)
        for source in sorted(claims):
            told = f"{claims[source][0].where} is about {source}, which is not in the pack"
            self._add("INCOMPLETE", "against", told, "ask for a pack that has this source")
        extra = sorted(self.reader.members.keys() - self._known)
        if extra:
            told = f"{extra[0]} does not belong to a pack of these sources"
            self._fail(Tampered("container", None, told))
        return self.found

    def _trusted(self) -> list[Verifier]:
        """Return the keys that the caller trusts. Raises BadQuestion when it names none."""
        file, texts = self.options.trusted, self.options.keys
        try:
            found = [Verifier.parse(text) for text in texts]
            found += read_trusted(file) if file is not None else []
        except BadNote as error:
            raise InvalidRequest(f"a trusted key cannot be read: {error}") from error
        if file is not None and not found:
            raise InvalidRequest(f"{file} holds no key; `ledger seal keys` prints them")
        return found

    def _claims(self, trusted: Sequence[Verifier]) -> dict[str, list[Claim]]:
        """Read the checkpoints that were kept elsewhere."""
        claims: dict[str, list[Claim]] = {}
        for path in self.options.against:
            notes = list(sealfile.read(path))
            if not notes:
                raise InvalidRequest(f"{path} holds no signed checkpoint")
            for note in notes:
                try:
                    said, signers = open_checkpoint(note, trusted)
                except BadNote as error:
                    told, advice = f"{path}: {error}", "take an untouched copy of the file"
                    self.found.append(Checked("fail", "against", told, advice))
                    continue
                if said.source:
                    claim = Claim(said.size, said.root, str(path), bool(signers) or not trusted)
                    claims.setdefault(said.source, []).append(claim)
        return claims

    def _check_container(self) -> None:
        step = self.progress.step("reading the pack (bytes)", None)
        self.reader.scan(step.advance)
        step.done()
        changed = self.reader.changed()
        for name in changed[:LISTED_MAX]:
            self._fail(Tampered("container", None, f"{name} is not what {SUMS} says"))
        if not changed:
            told = f"{len(self.reader.members)} members, each with the hash that {SUMS} says"
            self._add("ok", "container", told)

    def _load_keys(self, trusted: Sequence[Verifier]) -> None:
        try:
            lines = self.reader.read(KEYS).decode("utf-8", "replace").splitlines()
            own = [Verifier.parse(line) for line in lines]
        except BadNote as error:
            raise Tampered("keys", None, f"{KEYS}: {error}") from error
        self.keys = list(trusted) or own
        if trusted:
            return
        named = ", ".join(map(str, own))
        self._add("ok", "keys", f"the pack's own key signed: {named}", ELSEWHERE)

    def _check_version(self, about: About) -> bool:
        """Say whether this program folds as the one did that made the pack."""
        here = fold_version.current_version([each.terms for each in about.sources])
        if here == about.version:
            self._add("ok", "version", f"folded by {about.program}, version {here}, as here")
            return True
        told = f"folded by {about.program}, version {about.version}; here it is {here}"
        self._add("ok", "version", told)
        return False

    def _check_source(self, each: Packed, claims: Sequence[Claim], *, is_same: bool) -> None:
        parts = part_names(self.reader, events_folder(each.source))
        self._known |= {*parts, *books_of(self.reader, each.source)}
        if not parts:
            self._fail(Tampered("density", 1, "the pack has no events"), each.source)
            return
        with (
            tempfile.TemporaryDirectory(prefix="ledger-verify-") as folder,
            OfflineStore(Path(folder) / "fold.sqlite") as shelf,
        ):
            self._check_in(shelf, each, claims, is_same=is_same)

    def _check_in(
        self, shelf: OfflineStore, each: Packed, claims: Sequence[Claim], *, is_same: bool
    ) -> None:
        comparing = BooksCheck(self.reader, each.source)
        parts = Parts(comparing.put)

        def emit(table: str, line: bytes) -> None:
            parts.add(books_folder(each.source, table), line)

        fold = None
        if not self.options.skip_books:
            fold = OfflineFold(shelf, each.terms, registry.load(), emit)
        check = EventsCheck(self.reader, each, claims, fold)
        step = self.progress.step(f"{each.source}: events and books", each.position)
        try:
            root = check.run(step.advance)
            check.compare_beyond(self._check_seal(each, root))
        except Tampered as error:
            self._fail(error, each.source)
            self._add("INCOMPLETE", "books", "not folded from a log that is not whole itself",
                      KEEP, each.source)  # fmt: skip
            self._check_journal(each)
            return
        finally:
            step.done()
        self._tell_log(each, check, claims)
        self._check_journal(each)
        if fold is None:
            self._add("INCOMPLETE", "books", "not folded again (--skip-books)", "", each.source)
            return
        fold.finish()
        parts.finish()
        self._tell_books(each, comparing, is_same=is_same)

    def _check_seal(self, each: Packed, root: bytes) -> Checkpoint:
        """Check that a signed checkpoint covers the events, whose tree has this root."""
        name = note_name(each.source)
        try:
            note = self.reader.read(name).decode()
            checkpoint, signers = open_checkpoint(note, self.keys)
        except (BadNote, UnicodeDecodeError) as error:
            raise Tampered("seals", None, f"{name} is broken: {error}") from error
        if checkpoint.source != each.source or checkpoint.size != each.checkpoint:
            raise Tampered("seals", None, f"{name} is not the checkpoint that {ABOUT} names")
        if not signers:
            told = f"{name} is signed by no trusted key"
            raise Tampered("seals", None, told if self.options.trusted else told + " of the pack")
        if not each.is_covered(root, checkpoint):
            told = f"the {each.position} events are not those that {name} signed"
            raise Tampered("seals", None, told)
        self._tell_seal(each, checkpoint, signers)
        return checkpoint

    def _tell_seal(self, each: Packed, signed: Checkpoint, signers: Sequence[Verifier]) -> None:
        by = ", ".join(map(str, signers))
        of = f"{each.position} events are"
        if signed.size > each.position:
            of = f"{each.position} events are the first of {signed.size} that were"
        self._add("ok", "seals", f"the {of} signed by {by}", "", each.source)

    def _tell_log(self, each: Packed, check: EventsCheck, claims: Sequence[Claim]) -> None:
        told = f"{each.position} events, dense, in order of time, each with its own body"
        self._add("ok", "log", told, "", each.source)
        agreed = len(claims) - len(check.beyond)
        if agreed:
            told = f"{agreed} checkpoints kept elsewhere: no contradiction"
            self._add("ok", "against", told, "", each.source)
        if any(not claim.is_trusted for claim in claims):
            told = "a checkpoint kept elsewhere is signed by no trusted key"
            self._add("INCOMPLETE", "against", told, "name its key, if you trust it", each.source)
        if check.beyond:
            most = max(claim.size for claim in check.beyond)
            told = (
                f"the pack ends at {each.position}; a checkpoint kept elsewhere has {most} events"
            )
            self._add("INCOMPLETE", "against", told, "ask for a pack up to there", each.source)

    def _check_journal(self, each: Packed) -> None:
        try:
            count = check_journal(self.reader, each)
        except Tampered as error:
            self._fail(error, each.source)
            return
        told = f"{count} entries balance at every position"
        self._add("ok", "journal", told, "", each.source)

    def _tell_books(self, each: Packed, compared: BooksCheck, *, is_same: bool) -> None:
        found = compared.found + compared.unexpected()
        if not found:
            told = f"every table is the fold of the events up to {each.position}"
            if not is_same:
                told += "; another version of the program made them, and this one makes the same"
            self._add("ok", "books", told, "", each.source)
        elif is_same:
            for error in found[:LISTED_MAX]:
                self._fail(error, each.source)
        else:
            told = f"folded by another version, and this one makes other books: {found[0]}"
            advice = "verify with the version that made the pack; its events hold"
            self._add("INCOMPLETE", "books", told, advice, each.source)

    def _fail(self, error: Tampered, source: str = "") -> None:
        self.found.append(Checked("fail", error.check, str(error), KEEP, source, error.position))

    def _add(
        self, verdict: Verdict, name: str, found: str, advice: str = "", source: str = ""
    ) -> None:
        self.found.append(Checked(verdict, name, found, advice, source))
