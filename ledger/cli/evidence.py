"""Commands that prove: `verify`, `rebuild`, `prove` and `seal`."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

from cyclopts import App, Parameter

from ledger.cli.options import PROVE, Flag, Json
from ledger.errors import InvalidRequest

Against = Annotated[tuple[Path, ...], Parameter(negative="", show_default=False)]
Keys = Annotated[tuple[str, ...], Parameter(negative="", show_default=False)]


def verify(
    pack: Annotated[Path | None, Parameter(name="file", show_default=False)] = None, /, *,
    against: Against = (), trusted: Path | None = None, key: Keys = (),
    skip_books: Flag = False, json: Json = False,
) -> int:  # fmt: skip
    """Recompute log, seals and books from the events; name the first event that does not match.

    With FILE, an audit pack made by `ledger export --audit`: needs no database and no service.
    Exit status: 0 everything holds, 1 something does not, 3 something could not be checked.

    Parameters
    ----------
    pack
        An audit pack to check instead of this machine's database.
    against
        File with signed checkpoints that were kept elsewhere; may be given more than once.
    trusted
        File of trusted public keys, one a line; otherwise keys/trusted.txt of LEDGER_DATA_DIR, or
        for a pack its own key, which you then have to compare with one from elsewhere.
    key
        A trusted public key, for a pack; may be given more than once.
    skip_books
        Do not fold the log again; the result is then INCOMPLETE.
    json
        Print the checks as JSON.
    """
    if pack is not None:
        from ledger.verify import pack as verify_pack

        given = verify_pack.PackOptions(against, trusted, key, skip_books, json)
        return verify_pack.run(pack, given)
    if key:
        raise InvalidRequest("--key is for a pack; name its FILE, or use --trusted FILE")
    import os

    from ledger.config.settings import load
    from ledger.verify.database import VerifyOptions, run

    return run(load(os.environ), VerifyOptions(against, trusted, skip_books, json))


def rebuild(
    *, swap: Flag = False, accept_differences: Flag = False, verify_only: Flag = False,
    rollback: Flag = False, processes: int = 2, json: Json = False,
) -> int:  # fmt: skip
    """Fold the log again beside the live books, compare every table, and swap with --swap.

    The service continues to receive and to answer. An interrupted rebuild continues when run again.
    Without a flag the rebuilt books are kept for a later --swap. Exit status: 0 the books are
    equal or were swapped, 1 they differ, 3 it could not be finished.

    Parameters
    ----------
    swap
        Make the rebuilt books the live ones when they are equal.
    accept_differences
        With --swap or --rollback: swap although they differ.
    verify_only
        Only compare; drop the rebuilt books.
    rollback
        Bring back the books that were live before the last swap, folded up to the present
        position, when they are equal to the live ones.
    processes
        Processes that fold.
    json
        Print the result as JSON.
    """
    import os

    from ledger.cli.rebuild import RebuildOptions, run
    from ledger.config.settings import load

    options = RebuildOptions(swap, accept_differences, verify_only, rollback, processes, json)
    return run(load(os.environ), options)


def prove(
    source: str, position: int | None = None, /, *,
    consistency: Annotated[tuple[int, int] | None, Parameter(negative="")] = None,
    size: int | None = None,
    trusted: Path | None = None, url: str | None = None, token: str | None = None,
    json: Json = False,
) -> int:  # fmt: skip
    """Prove that a signed checkpoint covers an event, or that one checkpoint continues another.

    The proof comes from a running service and is checked here against the keys trusted here.
    Exit status: 0 it holds, 1 it does not, 3 no trusted key signed the checkpoint.

    Parameters
    ----------
    source
        The log.
    position
        The event's position.
    consistency
        FROM and TO: sizes of two checkpoints.
    size
        Prove against the checkpoint of this size instead of the latest.
    trusted
        File of trusted public keys, one a line; otherwise keys/trusted.txt of LEDGER_DATA_DIR.
    url
        The service's address. Otherwise LEDGER_URL, else host and port of the settings.
    token
        API token. Otherwise the first of LEDGER_API_TOKENS.
    json
        Print the proof as JSON.
    """
    from ledger.cli import prove as proving

    options = proving.ProveOptions(url, token, trusted, json)
    if consistency is not None and position is None:
        return proving.consistency(options, source, *consistency)
    if consistency is None and position is not None:
        return proving.inclusion(options, source, position, size)
    raise InvalidRequest("name either the POSITION of an event or --consistency FROM TO")


seal = App(
    name="seal", help="Show or change the keys that sign the logs' checkpoints.", group=PROVE
)


@seal.command
def keys(*, json: Json = False) -> int:
    """List the public keys trusted here, the newest last: give them to those who check seals.

    Parameters
    ----------
    json
        Print them as JSON.
    """
    from ledger.evidence.keys import trusted_keys

    return _keys(list(map(str, trusted_keys(_data_dir()))), json=json)


@seal.command
def rotate(*, json: Json = False) -> int:
    """Make a new key that signs from now on; what the old one signed stays trusted.

    Parameters
    ----------
    json
        Print the trusted keys as JSON.
    """
    from ledger.evidence.keys import rotate as make_new
    from ledger.evidence.keys import trusted_keys

    make_new(_data_dir())
    _make_folder()
    return _keys(list(map(str, trusted_keys(_data_dir()))), json=json)


@seal.command(name="begin-file")
def begin_file(source: str, /) -> int:
    """Begin the file of a source's checkpoints again, with those that the database has.

    For a file that is lost for good, or that has signed what the database does not have, once you
    know why. The file that is there is kept aside.

    Parameters
    ----------
    source
        The source, as in LEDGER_SOURCES.
    """
    from ledger.evidence.checkpoint_file import begin_again

    aside = begin_again(_data_dir(), source)
    print(f"the file that was there is {aside}" if aside else "there was no file")
    return 0


def _make_folder() -> None:
    """Make the folder of checkpoints where the database has no checkpoint either.

    A folder that is missing although checkpoints were signed is lost evidence: it is not made.
    """
    import asyncio
    import os

    from ledger.config.settings import load
    from ledger.database import connection as database
    from ledger.database.errors import EXPECTED
    from ledger.errors import ServerNotFound
    from ledger.evidence import checkpoint_file, keys
    from ledger.evidence import store as seals
    from ledger.postgres.attach import database_dsn

    settings = load(os.environ)
    folder = settings.data_dir / checkpoint_file.FOLDER
    if folder.exists():
        return
    try:
        dsn = database_dsn(settings)
    except ServerNotFound:
        return

    async def is_sealed() -> bool:
        async with database.connected(dsn) as connection:
            return bool(await connection.fetchval(seals.SELECT_ANY_SEAL))

    try:
        if not asyncio.run(is_sealed()):
            keys.create_private_folder(folder)
    except EXPECTED as error:
        print(f"ledger: {folder} is not made: {error}; see `ledger doctor`", file=sys.stderr)


def _keys(keys: list[str], *, json: bool) -> int:
    import orjson

    if json:
        sys.stdout.write(orjson.dumps({"keys": keys}).decode() + "\n")
    else:
        print("\n".join(keys) or "no key yet: `ledger serve` makes one")
    return 0


def _data_dir() -> Path:
    import os

    from ledger.config.settings import load

    return load(os.environ).data_dir
