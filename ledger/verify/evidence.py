"""Verifying what is kept outside the database: keys, files of checkpoints, settings.

What is gone or shortened there is a failure, never a silence: it is what convicts a rewritten log.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Final

from ledger.config.settings import Settings
from ledger.errors import CannotSeal
from ledger.eventlog.sources import changed_terms
from ledger.evidence import checkpoint_file as sealfile
from ledger.evidence import keys
from ledger.evidence import store as seals
from ledger.evidence.authenticity import Authenticity, source_of_log
from ledger.verify.log import Proved
from ledger.verify.outcome import Checked

WAIT_SECONDS_MAX: Final = 3.0
"""How long the sealer is waited for, which writes a checkpoint to its file after the database."""

PAUSE_SECONDS: Final = 0.1
RESTORE: Final = "restore it from a backup; whatever is signed from now on does not replace it"
COUNT_UP_TO: Final = "SELECT count(*) FROM ledger.seals WHERE source = $1 AND size <= $2"


def is_here(data_dir: Path) -> bool:
    """Tell whether this is the data directory of the service that seals, or what is left of it."""
    names = (keys.FOLDER, sealfile.FOLDER)
    return any((data_dir / name).exists() for name in names)


def check_keys(settings: Settings, sealed: int, given: Path | None) -> Iterator[Checked]:
    """Check that the keys that are trusted here are there, when checkpoints were signed."""
    if given is not None or not sealed or keys.trusted_keys(settings.data_dir):
        return
    path = settings.data_dir / keys.FOLDER / keys.TRUSTED_FILE
    told = f"{path} is gone or empty, although {sealed} checkpoints were signed"
    advice = f"{RESTORE}; on another machine, name a list of trusted keys with --trusted FILE"
    yield Checked("fail", "keys", told, advice)


async def check_file(
    connection: Any, settings: Settings, source: str, sealed: int, before: frozenset[int]
) -> list[Checked]:
    """Check a source's file of checkpoints against the seals in the database, and those against it.

    `before` are the sizes that were in the file before the seals were read: none may be missing
    in the database. `sealed` is the size of the last seal.
    """
    if not is_here(settings.data_dir):
        return []
    try:
        path = sealfile.path_of(settings.data_dir, source)
    except CannotSeal as error:
        return [Checked("fail", "sources", str(error), "keep everything as it is", source)]
    ahead = max(before, default=0)
    if ahead > sealed:
        has = f"ends at {sealed}" if sealed else "has none of this log"
        told = f"{path} has a checkpoint of {ahead} events, but ledger.seals {has}"
        advice = "keep the file; the seals were deleted, or the database is an older backup"
        return [Checked("fail", "seals", told, advice, source, sealed + 1)]
    return await _complete(connection, path, source, sealed)


async def _complete(connection: Any, path: Path, source: str, sealed: int) -> list[Checked]:
    """Wait until a file has every checkpoint of the database up to `sealed`; say what it lacks."""
    deadline = asyncio.get_running_loop().time() + WAIT_SECONDS_MAX
    while True:
        sizes = await asyncio.to_thread(_sizes, path)
        there = await connection.fetchval(COUNT_UP_TO, source, sealed)
        lacks = there - len([size for size in sizes or () if size <= sealed])
        if lacks <= 0:
            return []
        is_short = sizes is None or lacks > sealfile.LATE_MAX
        if is_short or asyncio.get_running_loop().time() > deadline:
            break
        await asyncio.sleep(PAUSE_SECONDS)
    if sizes is None:
        told = f"{path} is gone or was emptied, although {there} checkpoints were signed"
        return [Checked("fail", "seals", told, RESTORE, source)]
    told = f"{path} lacks {lacks} of {there} checkpoints"
    if is_short:
        return [Checked("fail", "seals", told, RESTORE, source)]
    advice = "run `ledger serve`, which writes what a crash kept from the file; then verify again"
    return [Checked("INCOMPLETE", "seals", told, advice, source)]


def _sizes(path: Path) -> set[int] | None:
    """Return the sizes of the checkpoints in a file; None when it is gone or empty."""
    if not path.exists() or not path.stat().st_size:
        return None
    return {size for note in sealfile.read(path) if (size := sealfile.size_of(note))}


async def check_terms(connection: Any, settings: Settings) -> list[Checked]:
    """Check that the database says of the sources what the settings say, where they name them."""
    assumed = "no setting names the source here: verify with the settings of the service"
    advice = (
        "verify with the settings of the service; if these are they, find out who changed "
        "ledger.sources: a restart of `ledger serve` writes it again"
    )
    changed = await changed_terms(connection, settings)
    found = []
    for source, how in changed:
        known = source_of_log(settings, source)
        if known is not None and known.is_assumed:
            found.append(Checked("INCOMPLETE", "sources", how, assumed, source))
        else:
            found.append(Checked("fail", "sources", how, advice, source))
    return found


async def judge(connection: Any, settings: Settings, source: str) -> Authenticity | None:
    """Return what judges the events of a log; None when its source is not configured."""
    since = await connection.fetchval(seals.SELECT_MARKED_SINCE, seals.MARKS)
    return Authenticity.of(settings, source, since)


def check_senders(source: str, judge: Authenticity | None, proved: Proved) -> Iterator[Checked]:
    """Say whether every event came from a sender that knew a secret."""
    if not proved.events:
        return
    if judge is None:
        told = "who sent its events is not checked: the source is not configured here"
        advice = "verify with the settings of the service"
        yield Checked("INCOMPLETE", "senders", told, advice, source)
        return
    for kind, verdict, advice in _JUDGED:
        found = proved.doubts.get(kind)
        if found is not None:
            first, others = found.first, found.count - 1
            more = f", and {others} event{'s' * (others != 1)} after it" if others else ""
            told = f"event {first.position} {first.reason}{more}"
            yield Checked(verdict, "senders", told, advice, source, first.position)
    if not proved.doubts:
        told = "every event carries a proof that its sender knew a secret of the source"
        if not judge.has_secret:
            told = "the source has no secret: nothing is claimed about who sent its events"
        elif judge.unsigned_until:
            told += f", but the first {judge.unsigned_until}, which are declared to have none"
        yield Checked("ok", "senders", told, source=source)


_JUDGED: Final[Sequence[Any]] = (
    ("forged", "fail",
     "find out who wrote it to the database; if it was taken before the source had a secret, "
     "declare that with unsigned_until under [sources.<name>]"),
    ("unknown", "INCOMPLETE",
     "name the secret that made it, if it was yours, in secrets_retired under [sources.<name>]; "
     "otherwise find out who wrote it to the database"),
    ("unmarked", "INCOMPLETE",
     "if the events of that time are yours, declare the last of them with unsigned_until under "
     "[sources.<name>] (unsigned_statements_until for a log of statements)"),
)  # fmt: skip
