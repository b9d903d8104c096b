"""Verify the evidence outside the database: keys, checkpoint files, settings.

A missing or shortened file is a failure: it is the evidence against a rewritten log.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Final

from ledger.config.settings import Settings
from ledger.errors import CannotSeal
from ledger.eventlog.sources import changed_terms
from ledger.evidence import checkpoint_file, keys
from ledger.evidence.authenticity import Authenticity, source_of_log
from ledger.evidence.store import MARKS, SELECT_MARKED_SINCE
from ledger.verify.log import VerifiedLog
from ledger.verify.outcome import CheckResult, counted

WAIT_SECONDS_MAX: Final = 3.0
"""How long to wait for the sealer, which writes a checkpoint to its file after the database."""

PAUSE_SECONDS: Final = 0.1
RESTORE: Final = "restore it from a backup; what is signed from now on does not replace it"
COUNT_UP_TO: Final = "SELECT count(*) FROM ledger.seals WHERE source = $1 AND size <= $2"


def has_evidence(data_dir: Path) -> bool:
    """Tell whether a data directory holds keys or checkpoint files of a service that seals."""
    names = (keys.FOLDER, checkpoint_file.FOLDER)
    return any((data_dir / name).exists() for name in names)


def check_keys(settings: Settings, sealed: int, given: Path | None) -> Iterator[CheckResult]:
    """Check that the list of trusted keys exists, when checkpoints were signed."""
    if given is not None or not sealed or keys.trusted_keys(settings.data_dir):
        return
    path = settings.data_dir / keys.FOLDER / keys.TRUSTED_FILE
    message = f"{path} is gone or empty, although {sealed} checkpoints were signed"
    advice = f"{RESTORE}; on another machine, name a list of trusted keys with --trusted FILE"
    yield CheckResult("fail", "keys", message, advice)


async def check_file(
    connection: Any, settings: Settings, source: str, sealed: int, before: frozenset[int]
) -> list[CheckResult]:
    """Compare a source's checkpoint file with the seals in the database.

    `sealed` is the size of the last seal; `before` are the sizes that the file had before the seals
    were read: the database must have them all.
    """
    if not has_evidence(settings.data_dir):
        return []
    try:
        path = checkpoint_file.path_of(settings.data_dir, source)
    except CannotSeal as error:
        return [CheckResult("fail", "sources", str(error), "keep everything as it is", source)]
    ahead = max(before, default=0)
    if ahead > sealed:
        has = f"ends at {sealed}" if sealed else "has none of this log"
        message = f"{path} has a checkpoint of {ahead} events, but ledger.seals {has}"
        advice = "keep the file; the seals were deleted, or the database is an older backup"
        return [CheckResult("fail", "seals", message, advice, source, sealed + 1)]
    return await _check_complete(connection, path, source, sealed)


async def _check_complete(
    connection: Any, path: Path, source: str, sealed: int
) -> list[CheckResult]:
    """Wait until a file has every checkpoint up to `sealed`; report what it lacks."""
    deadline = asyncio.get_running_loop().time() + WAIT_SECONDS_MAX
    while True:
        sizes = await asyncio.to_thread(_sizes, path)
        count = await connection.fetchval(COUNT_UP_TO, source, sealed)
        lacks = count - len([size for size in sizes or () if size <= sealed])
        if lacks <= 0:
            return []
        is_short = sizes is None or lacks > checkpoint_file.LATE_MAX
        if is_short or asyncio.get_running_loop().time() > deadline:
            break
        await asyncio.sleep(PAUSE_SECONDS)
    if sizes is None:
        message = f"{path} is gone or was emptied, although {count} checkpoints were signed"
        return [CheckResult("fail", "seals", message, RESTORE, source)]
    message = f"{path} lacks {lacks} of {count} checkpoints"
    if is_short:
        return [CheckResult("fail", "seals", message, RESTORE, source)]
    advice = "run `ledger serve`, which writes what a crash kept from the file; then verify again"
    return [CheckResult("INCOMPLETE", "seals", message, advice, source)]


def _sizes(path: Path) -> set[int] | None:
    """Return the sizes of the checkpoints in a file; None when it is gone or empty."""
    if not path.exists() or not path.stat().st_size:
        return None
    return {size for note in checkpoint_file.read(path) if (size := checkpoint_file.size_of(note))}


async def check_terms(connection: Any, settings: Settings) -> list[CheckResult]:
    """Compare the terms of the sources in the database with those in the settings."""
    assumed = "no setting names the source here: verify with the settings of the service"
    advice = (
        "verify with the settings of the service; if these are they, find out who changed "
        "ledger.sources: a restart of `ledger serve` writes it again"
    )
    changed = await changed_terms(connection, settings)
    results = []
    for source, how in changed:
        known = source_of_log(settings, source)
        if known is not None and known.is_assumed:
            results.append(CheckResult("INCOMPLETE", "sources", how, assumed, source))
        else:
            results.append(CheckResult("fail", "sources", how, advice, source))
    return results


async def authenticity_of(connection: Any, settings: Settings, source: str) -> Authenticity | None:
    """Return the check of a log's senders; None when its source is not configured."""
    since = await connection.fetchval(SELECT_MARKED_SINCE, MARKS)
    return Authenticity.of(settings, source, since)


def check_senders(
    source: str, authenticity: Authenticity | None, log: VerifiedLog
) -> Iterator[CheckResult]:
    """Report whether every event came from a sender that knew a secret of the source."""
    if not log.events:
        return
    if authenticity is None:
        message = "who sent its events is not checked: the source is not configured here"
        advice = "verify with the settings of the service"
        yield CheckResult("INCOMPLETE", "senders", message, advice, source)
        return
    for kind, outcome, advice in _DOUBTS:
        events = log.doubts.get(kind)
        if events is not None:
            first, others = events.first, events.count - 1
            more = f", and {counted(others, 'event')} after it" if others else ""
            message = f"event {first.position} {first.reason}{more}"
            yield CheckResult(outcome, "senders", message, advice, source, first.position)
    if not log.doubts:
        message = "every event carries a proof that its sender knew a secret of the source"
        if not authenticity.has_secret:
            message = "the source has no secret, so the senders of its events are not known"
        elif authenticity.unsigned_until:
            message += f", but the first {authenticity.unsigned_until}, declared to have none"
        yield CheckResult("ok", "senders", message, source=source)


_DOUBTS: Final[Sequence[Any]] = (
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
