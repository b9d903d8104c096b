"""The manifest of an audit pack: its first member, and the names of the others. Pure.

`about.json` has what folds the books: the program's version and the terms of the sources. A signed
note beside it (C2SP signed-note) lists each of its fields, so that a changed one can be named.
"""

from __future__ import annotations

from base64 import b64decode, b64encode
from collections.abc import Iterator, Sequence
from typing import Any, Final, Literal

import msgspec
import orjson

from ledger import __version__
from ledger.config.owner_rule import read_owner_rule
from ledger.config.source import LOG_NAME
from ledger.errors import Tampered
from ledger.evidence.merkle import HASH_BYTES, extends
from ledger.evidence.signed_note import Checkpoint
from ledger.model import OwnerRule, SourceTerms

FORMAT: Final = "callback-ledger audit pack 2"
UNSIGNED_FORMAT: Final = "callback-ledger audit pack 1"
"""The format of a pack without ABOUT_NOTE: of an older version, or made without the sealing key."""
ABOUT: Final = "about.json"
ABOUT_NOTE: Final = "about.note.txt"
"""The member with the signed fields of ABOUT, which every pack of FORMAT has."""
KEYS: Final = "keys/trusted.txt"
SHOWN_MAX: Final = 100
"""Characters of a value that a message shows."""

_NOTE_BEGIN: Final = "callback-ledger about.json"


class Packed(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One source in a pack: its terms, last position, and the checkpoint that covers it."""

    source: str
    provider: str
    currency: str | None
    wallets: dict[str, str]
    position: int
    checkpoint: int
    """The size that was signed: `position`, or more when no checkpoint ends there."""
    consistency: list[str]
    """The proof that the tree of `checkpoint` begins with that of `position` (RFC 6962 §2.1.2)."""
    owner_of: OwnerRule | None = None
    date_by: Literal["creation", "receipt"] = "creation"

    @property
    def terms(self) -> SourceTerms:
        """What was configured about the source."""
        return SourceTerms(
            self.source, self.provider, self.currency, self.wallets, self.owner_of, self.date_by
        )

    def is_covered(self, root: bytes, by: Checkpoint) -> bool:
        """Tell whether a checkpoint covers the first `position` events, whose root is `root`."""
        if by.size == self.position:
            return not self.consistency and root == by.root
        path = [b64decode(step) for step in self.consistency]
        return extends(self.position, by.size, root, by.root, path)


class About(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The content of `about.json`."""

    format: str
    program: str
    version: str
    """The version of the code and terms that folded the books."""
    sources: list[Packed]


def describe(
    terms: SourceTerms, position: int, checkpoint: int, path: Sequence[bytes] = ()
) -> Packed:
    """Return the description of one source in a pack."""
    return Packed(
        terms.source, terms.provider, terms.currency, dict(sorted(terms.wallets.items())),
        position, checkpoint, [b64encode(step).decode() for step in path],
        terms.owner_of, "receipt" if terms.date_by == "receipt" else "creation",
    )  # fmt: skip


def about(version: str, sources: Sequence[Packed], *, is_signed: bool = True) -> bytes:
    """Return the first member, of a pack in which its fields are signed or not."""
    format_ = FORMAT if is_signed else UNSIGNED_FORMAT
    content = About(format_, f"callback-ledger {__version__}", version, list(sources))
    return _encode(msgspec.to_builtins(content))


def about_text(data: bytes) -> str:
    """Return the text of the note about the first member: a line for each of its fields.

    Its second line is no number, so that it is never taken for a checkpoint.
    """
    lines = [_NOTE_BEGIN, *(f"{name} {value}" for name, value in _fields(data).items())]
    return "".join(f"{line}\n" for line in lines)


def changed_fields(data: bytes, text: str) -> list[str]:
    """Return how the first member differs from a signed text, a clause for each field.

    Raises Tampered when the text or the member is none.
    """
    # JSON has no line end in it, but signs that `splitlines` takes for one.
    begin, *lines = text.removesuffix("\n").split("\n")
    if begin != _NOTE_BEGIN:
        raise Tampered("about", None, f"{ABOUT_NOTE} is a note about something else")
    signed = {name: value for name, _, value in (line.partition(" ") for line in lines)}
    present = _fields(data)
    changes = [
        f"{name} is {_shown(present.get(name))}, but {_signed(signed.get(name))}"
        for name in dict.fromkeys([*signed, *present])
        if present.get(name) != signed.get(name)
    ]
    if not changes and _encode(orjson.loads(data)) != data:
        return ["the bytes are not those that its fields make"]
    return changes


def _fields(data: bytes) -> dict[str, str]:
    """Return the fields of the first member and their values in JSON. Raises Tampered."""
    try:
        content = orjson.loads(data)
        if not isinstance(content, dict):
            raise Tampered("about", None, f"{ABOUT} is no object")
        return {name: orjson.dumps(value).decode() for name, value in _flat(content)}
    except (orjson.JSONDecodeError, orjson.JSONEncodeError) as error:
        raise Tampered("about", None, f"{ABOUT} cannot be read: {error}") from error


def _flat(content: dict[str, Any]) -> Iterator[tuple[str, Any]]:
    """Yield the name and the value of each field, those of sources one by one."""
    for name, value in content.items():
        if name != "sources" or not isinstance(value, list):
            yield name, value
            continue
        for number, source in enumerate(value):
            for key, inner in (source if isinstance(source, dict) else {"": source}).items():
                yield f"sources[{number}].{key}", inner


def _signed(value: str | None) -> str:
    return "was not there when it was signed" if value is None else f"{_shown(value)} was signed"


def _shown(value: str | None) -> str:
    text = "absent" if value is None else value
    return text if len(text) <= SHOWN_MAX else text[: SHOWN_MAX - 1] + "…"


def _encode(content: Any) -> bytes:
    return orjson.dumps(content, option=orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE)


def read_about(data: bytes) -> About:
    """Read the first member. Raises Tampered when it is not that of a pack."""
    try:
        content = msgspec.convert(orjson.loads(data), About)
        steps = [step for source in content.sources for step in source.consistency]
        hashes = [b64decode(step, validate=True) for step in steps]
        for rule in (source.owner_of for source in content.sources):
            if rule is not None:
                read_owner_rule(msgspec.to_builtins(rule))
    except (msgspec.ValidationError, ValueError) as error:
        raise Tampered("about", None, f"{ABOUT} cannot be read: {error}") from error
    if content.format not in (FORMAT, UNSIGNED_FORMAT):
        message = f"its format is {content.format[:60]!r}, and this program reads {FORMAT!r}"
        raise Tampered("about", None, message)
    names = [each.source for each in content.sources]
    wrong = [each for each in content.sources if not 0 < each.position <= each.checkpoint]
    if (
        not names
        or wrong
        or sorted(set(names)) != names
        or any(len(h) != HASH_BYTES for h in hashes)
    ):
        raise Tampered("about", None, f"{ABOUT} names its sources wrongly")
    if not all(LOG_NAME.fullmatch(name) for name in names):
        raise Tampered("about", None, f"{ABOUT} names a source that cannot be one")
    return content


def note_name(source: str) -> str:
    """Name the member that holds a source's signed checkpoint."""
    return f"checkpoints/{source}.txt"


def events_folder(source: str) -> str:
    """Name the folder of a source's events."""
    return f"events/{source}"


def books_folder(source: str, table: str) -> str:
    """Name the folder of a table of a source's books."""
    return f"books/{source}/{table}"


def small_members(sources: Sequence[Any]) -> set[str]:
    """Return the members that are not parts of tables."""
    return {ABOUT, ABOUT_NOTE, KEYS, *(note_name(each.source) for each in sources)}
