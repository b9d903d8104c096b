"""`ledger verify FILE`: verifies an audit pack without a database or a service.

Everything is computed again from the events in it: hashes, density, identities, the Merkle root
under the signed checkpoint, and the books, which are folded once more and compared byte by byte.
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Final

from ledger import registry
from ledger.books import fold_version
from ledger.errors import BadNote, InvalidRequest, Tampered
from ledger.evidence import checkpoint_file
from ledger.evidence.keys import read_trusted
from ledger.evidence.signed_note import Checkpoint, Verifier, open_checkpoint, open_note
from ledger.export.offline_fold import OfflineFold, OfflineStore
from ledger.export.pack_file import SUM_OF_SUMS, SUMS, PackReader, Parts, open_pack
from ledger.export.pack_manifest import (
    ABOUT,
    ABOUT_NOTE,
    KEYS,
    UNSIGNED_FORMAT,
    About,
    Packed,
    books_folder,
    changed_fields,
    events_folder,
    note_name,
    read_about,
    small_members,
)
from ledger.terminal.progress import Progress
from ledger.verify.claims import Claim, read_claims
from ledger.verify.outcome import CheckResult, Report, print_results
from ledger.verify.pack_checks import BooksCheck, EventsCheck, books_of, check_journal, part_names

LISTED_MAX: Final = 20
KEEP: Final = "keep the pack as it is, ask for an unchanged one, and compare the two"
ELSEWHERE: Final = "compare it with a key that reached you another way (--key, --trusted FILE)"
PACKED_AGAIN: Final = (
    "the archive is not as it was written: another program packed its members again, unchanged"
)
ALL_HOLDS: Final = "the pack is complete, and its books are the fold of its events"


@dataclass(frozen=True, slots=True)
class PackOptions:
    """Against which evidence to verify a pack."""

    against: tuple[Path, ...] = ()
    trusted: Path | None = None
    keys: tuple[str, ...] = ()
    skip_books: bool = False
    json: bool = False


def run(path: Path, options: PackOptions) -> int:
    """Verify a pack and print the results; return the exit status."""
    quiet = options.json and not sys.stderr.isatty()
    with Progress.shown(quiet=quiet) as progress, open_pack(path) as file:
        results = PackCheck(PackReader(file), options, progress).examine()
    return print_results(results, ALL_HOLDS + _proviso(results), json=options.json)


def _proviso(results: Sequence[CheckResult]) -> str:
    """Return what to know of the archive, and what is still to do about the pack's own key."""
    archive = [
        f"; {result.advice}" for result in results if result.name == "container" and result.advice
    ]
    keys = [
        f"; {result.message}: {result.advice}"
        for result in results
        if result.name == "keys" and result.advice
    ]
    return "".join(archive + keys)


@dataclass(slots=True)
class PackCheck:
    """One check of one pack."""

    reader: PackReader
    options: PackOptions
    progress: Progress
    report: Report = field(default_factory=Report)
    keys: list[Verifier] = field(default_factory=list)
    """The keys whose signatures count: those of the caller, else the pack's own."""
    _known: set[str] = field(default_factory=set)
    """The names of the members that belong to the pack."""

    def examine(self) -> list[CheckResult]:
        """Check everything; what could not be checked is INCOMPLETE."""
        trusted = self._trusted()
        claims = self._claims(trusted)
        try:
            self._check_container()
            self._load_keys(trusted)
            self._check_about()
            about = read_about(self.reader.read(ABOUT))
            is_same = self._check_version(about)
        except Tampered as error:
            self._fail(error)
            return self.report.results
        self._known = small_members(about.sources) | {SUMS, SUM_OF_SUMS}
        for packed in about.sources:
            self._check_source(packed, claims.pop(packed.source, []), is_same=is_same)
        for source in sorted(claims):
            message = f"{claims[source][0].where} is about {source}, which is not in the pack"
            self.report.add("INCOMPLETE", "against", message, "ask for a pack that has this source")
        extra = sorted(self.reader.members.keys() - self._known)
        if extra:
            message = f"{extra[0]} does not belong to a pack of these sources"
            self._fail(Tampered("container", None, message))
        return self.report.results

    def _trusted(self) -> list[Verifier]:
        """Return the keys that the caller trusts. Raises InvalidRequest for an empty list."""
        file, texts = self.options.trusted, self.options.keys
        try:
            keys = [Verifier.parse(text) for text in texts]
            keys += read_trusted(file) if file is not None else []
        except BadNote as error:
            raise InvalidRequest(f"a trusted key cannot be read: {error}") from error
        if file is not None and not keys:
            raise InvalidRequest(f"{file} holds no key; `ledger seal keys` prints them")
        return keys

    def _claims(self, trusted: Sequence[Verifier]) -> dict[str, list[Claim]]:
        """Read the checkpoints that were kept elsewhere."""
        claims: dict[str, list[Claim]] = {}
        for path in self.options.against:
            if not any(checkpoint_file.read(path)):
                raise InvalidRequest(f"{path} holds no signed checkpoint")
            for source, claim in read_claims(path, trusted, self.report):
                # Without keys of the caller, a signature proves nothing more than the file.
                is_trusted = claim.is_trusted or not trusted
                claims.setdefault(source, []).append(replace(claim, is_trusted=is_trusted))
        return claims

    def _check_container(self) -> None:
        step = self.progress.step("reading the pack (bytes)", None)
        self.reader.scan(step.advance)
        step.done()
        changed = self.reader.changed()
        for name in changed[:LISTED_MAX]:
            self._fail(Tampered("container", None, f"{name} is not what {SUMS} says"))
        if changed:
            return
        message = f"{len(self.reader.members)} members, each with the hash that {SUMS} says"
        advice = ""
        if not self.reader.is_as_written():
            advice = PACKED_AGAIN
        self.report.add("ok", "container", message, advice)

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
        self.report.add("ok", "keys", f"the pack's own key signed: {named}", ELSEWHERE)

    def _check_about(self) -> None:
        """Check the fields of the first member against those that were signed. Raises Tampered."""
        data = self.reader.read(ABOUT)
        if ABOUT_NOTE not in self.reader.members:
            if read_about(data).format != UNSIGNED_FORMAT:
                message = f"{ABOUT_NOTE} is missing, and packs of this format have it"
                raise Tampered("about", None, message)
            message = (
                f"{ABOUT} is not signed, as in packs of older versions and those made without the "
                "sealing key: its version and the terms of its sources (currency, wallets …) are "
                "not proved"
            )
            advice = "compare them with what was agreed, or ask for a pack that is signed"
            self.report.add("INCOMPLETE", "about", message, advice)
            return
        try:
            text, signers = open_note(self.reader.read(ABOUT_NOTE).decode(), self.keys)
        except (BadNote, UnicodeDecodeError) as error:
            raise Tampered("about", None, f"{ABOUT_NOTE} is not valid: {error}") from error
        if not signers:
            self._fail(Tampered("about", None, f"{ABOUT_NOTE} is signed by no trusted key"))
            return
        changes = changed_fields(data, text)
        for change in changes[:LISTED_MAX]:
            self._fail(Tampered("about", None, f"{ABOUT}: {change}"))
        if not changes:
            by = ", ".join(map(str, signers))
            self.report.add("ok", "about", f"every field of {ABOUT} is signed by {by}")

    def _check_version(self, about: About) -> bool:
        """Report whether this program folds by the same version as the one that made the pack."""
        here = fold_version.current_version([packed.terms for packed in about.sources])
        if here == about.version:
            self.report.add("ok", "version", f"folded by {about.program}, version {here}, as here")
            return True
        message = f"folded by {about.program}, version {about.version}; here it is {here}"
        self.report.add("ok", "version", message)
        return False

    def _check_source(self, packed: Packed, claims: Sequence[Claim], *, is_same: bool) -> None:
        parts = part_names(self.reader, events_folder(packed.source))
        self._known |= {*parts, *books_of(self.reader, packed.source)}
        if not parts:
            self._fail(Tampered("density", 1, "the pack has no events"), packed.source)
            return
        with (
            tempfile.TemporaryDirectory(prefix="ledger-verify-") as folder,
            OfflineStore(Path(folder) / "fold.sqlite") as store,
        ):
            self._check_contents(store, packed, claims, is_same=is_same)

    def _check_contents(
        self, store: OfflineStore, packed: Packed, claims: Sequence[Claim], *, is_same: bool
    ) -> None:
        check_books = BooksCheck(self.reader, packed.source)
        parts = Parts(check_books.compare)

        def emit(table: str, line: bytes) -> None:
            parts.add(books_folder(packed.source, table), line)

        fold = None
        if not self.options.skip_books:
            fold = OfflineFold(store, packed.terms, registry.load(), emit)
        check = EventsCheck(self.reader, packed, claims, fold)
        step = self.progress.step(f"{packed.source}: events and books", packed.position)
        try:
            root = check.run(step.advance)
            check.compare_beyond(self._check_seal(packed, root))
        except Tampered as error:
            self._fail(error, packed.source)
            self.report.add("INCOMPLETE", "books", "not folded, because the log does not hold",
                      KEEP, packed.source)  # fmt: skip
            self._check_journal(packed)
            return
        finally:
            step.done()
        self._report_log(packed, check, claims)
        self._check_journal(packed)
        if fold is None:
            self.report.add(
                "INCOMPLETE", "books", "not folded again (--skip-books)", "", packed.source
            )
            return
        fold.finish()
        parts.finish()
        self._report_books(packed, check_books, is_same=is_same)

    def _check_seal(self, packed: Packed, root: bytes) -> Checkpoint:
        """Check that a signed checkpoint covers the events, whose tree has this root."""
        name = note_name(packed.source)
        try:
            note = self.reader.read(name).decode()
            checkpoint, signers = open_checkpoint(note, self.keys)
        except (BadNote, UnicodeDecodeError) as error:
            raise Tampered("seals", None, f"{name} is not valid: {error}") from error
        if checkpoint.source != packed.source or checkpoint.size != packed.checkpoint:
            raise Tampered("seals", None, f"{name} is not the checkpoint that {ABOUT} names")
        if not signers:
            message = f"{name} is signed by no trusted key"
            raise Tampered(
                "seals", None, message if self.options.trusted else message + " of the pack"
            )
        if not packed.is_covered(root, checkpoint):
            message = f"the {packed.position} events are not those that {name} signed"
            raise Tampered("seals", None, message)
        self._report_seal(packed, checkpoint, signers)
        return checkpoint

    def _report_seal(self, packed: Packed, signed: Checkpoint, signers: Sequence[Verifier]) -> None:
        by = ", ".join(map(str, signers))
        of = f"{packed.position} events are"
        if signed.size > packed.position:
            of = f"{packed.position} events are the first of {signed.size} that were"
        self.report.add("ok", "seals", f"the {of} signed by {by}", "", packed.source)

    def _report_log(self, packed: Packed, check: EventsCheck, claims: Sequence[Claim]) -> None:
        message = f"{packed.position} events, dense, in order of time, each with its own body"
        self.report.add("ok", "log", message, "", packed.source)
        agreed = len(claims) - len(check.beyond)
        if agreed:
            message = f"{agreed} checkpoints kept elsewhere: no contradiction"
            self.report.add("ok", "against", message, "", packed.source)
        if any(not claim.is_trusted for claim in claims):
            message = "a checkpoint kept elsewhere is signed by no trusted key"
            self.report.add(
                "INCOMPLETE", "against", message, "name its key, if you trust it", packed.source
            )
        if check.beyond:
            most = max(claim.size for claim in check.beyond)
            message = (
                f"the pack ends at {packed.position}; a checkpoint kept elsewhere has {most} events"
            )
            self.report.add(
                "INCOMPLETE", "against", message, "ask for a pack up to there", packed.source
            )

    def _check_journal(self, packed: Packed) -> None:
        try:
            count = check_journal(self.reader, packed)
        except Tampered as error:
            self._fail(error, packed.source)
            return
        message = f"{count} entries balance at every position"
        self.report.add("ok", "journal", message, "", packed.source)

    def _report_books(self, packed: Packed, compared: BooksCheck, *, is_same: bool) -> None:
        differences = compared.differences + compared.unexpected()
        if not differences:
            message = f"every table is the fold of the events up to {packed.position}"
            if not is_same:
                message += f"; it was folded by {self._others()}, and this program makes the same"
            self.report.add("ok", "books", message, "", packed.source)
        elif is_same:
            for error in differences[:LISTED_MAX]:
                self._fail(error, packed.source)
        else:
            message = (
                f"folded by {self._others()}, and this program makes other books: {differences[0]}"
            )
            advice = "verify with the version that made the pack; its events hold"
            self.report.add("INCOMPLETE", "books", message, advice, packed.source)

    def _others(self) -> str:
        """Say what may differ where the version of a pack is another than here."""
        if ABOUT_NOTE in self.reader.members:
            return "another version"
        return f"another version or with other terms than {ABOUT} has"

    def _fail(self, error: Tampered, source: str = "") -> None:
        self.report.fail(error, KEEP, source)
