"""The command line. Exit status: 0 ok, 1 found a problem, 2 usage, 3 could not finish.

Heavy modules are imported inside the commands, so that `--help` and `--version` are quick.
"""

from __future__ import annotations

import os
import sys
from contextlib import suppress
from typing import Annotated, Any, Final, Literal

from cyclopts import App, CycloptsError, Parameter

from ledger import __version__
from ledger.cli.decisions import COMMANDS as RECONCILE_COMMANDS
from ledger.cli.evidence import prove, rebuild, seal, verify
from ledger.cli.export import export
from ledger.cli.options import ASK, PROVE, RUN, SENDING, TRY, Json, Sending
from ledger.cli.queries import COMMANDS, exceptions, transactions
from ledger.cli.reconciliation import reconcile
from ledger.cli.statement_profiles import profile
from ledger.cli.statements import statement
from ledger.runtime.decimals import configure_decimal
from ledger.runtime.secrets import redact
from ledger.terminal.exit_status import OK, PROBLEM, UNFINISHED, USAGE, sentence, status_of

PROVING: Final = frozenset({"verify", "rebuild", "export", "reconcile", "prove"})
"""Commands whose status 1 means "found a difference": a failure, or an end before the end, is 3."""

app = App(
    name="ledger",
    help="Receives payment and reward callbacks durably and folds them into balances you can "
    "prove. Exit status: 0 ok, 1 found a problem, 2 usage, 3 could not finish.",
    version=__version__,
    result_action="return_value",
    suppress_keyboard_interrupt=False,
)


@app.command(group=RUN)
def serve(*, role: Literal["all", "receiver", "projector", "query"] = "all") -> int:
    """Run the service: receive callbacks, fold them, answer queries. Ctrl-C stops all of it.

    Parameters
    ----------
    role
        Run only this part of the service; the parts share one database (LEDGER_DATABASE_URL).
    """
    from ledger.service.supervisor import run

    return run(_settings(), role)


@app.command(group=RUN)
def migrate(*, json: Json = False) -> int:
    """Bring the database to this version's schema.

    Parameters
    ----------
    json
        Print the names of the migrations applied as JSON.
    """
    from ledger.service.supervisor import migrate_now

    applied = migrate_now(_settings())
    if json:
        _json({"applied": applied})
    else:
        print("\n".join(applied) or "nothing to apply: the schema is up to date")
    return OK


for _command in COMMANDS:
    app.command(_command, group=ASK)
app.command(transactions)
app.command(exceptions)
statement.command(profile)
app.command(statement)
app.command(reconcile)
for _action in RECONCILE_COMMANDS:
    reconcile.command(_action)


@app.command(group=TRY)
def send(
    *kinds: str,
    file: Annotated[
        tuple[str, ...],
        Parameter(negative="", show_default=False, allow_leading_hyphen=True),
    ] = (),
    scenario: str | None = None,
    count: int | None = None, sending: Sending = SENDING, json: Json = False,
) -> int:  # fmt: skip
    """Post signed callbacks to a running service, in the providers' own formats.

    Without arguments: every sample of the providers' documents, in order. With --count: made-up
    callbacks of these kinds. With --scenario: stories of several callbacks that belong together.

    Parameters
    ----------
    kinds
        Kinds (payment, payout …) or globs over sample names (straitsx/0*); more files after --file.
    file
        Send this file instead, and those named after it; - is standard input.
    scenario
        refund, return, kyc, swap or everything; --count repeats it that many times.
    count
        Send this many made-up callbacks of the kinds named, all kinds when none is.
    json
        Print every answer as JSON.
    """
    from ledger.cli.send import send_callbacks

    files = (*file, *kinds) if file else ()
    return send_callbacks(_settings(), kinds, files, scenario, count, sending, json=json)


@app.command(group=TRY)
def demo(*, json: Json = False, seed: int = 1) -> int:
    """Run a service in a temporary folder, send it every kind of callback, show the books.

    Parameters
    ----------
    json
        Print all answers as one JSON document.
    seed
        Seed of the made-up callbacks.
    """
    from ledger.cli.demo import run

    return run(seed=seed, json=json)


@app.command(group=RUN)
def doctor(*, json: Json = False) -> int:
    """Check settings, secrets, database, log, books, clock and disk, and advise what to do.

    Parameters
    ----------
    json
        Print the checks as JSON.
    """
    from ledger.doctor.doctor import run

    return run(_settings(), os.environ, json=json)


bench = App(
    name="bench",
    help="Measure this machine: receiving, folding, rebuilding, answering, reconciling, importing.",
    group=TRY,
)
app.command(bench)


@bench.command
def ingest(*, seconds: float = 10.0, json: Json = False) -> int:
    """Measure callbacks received per second, against a handler that does nothing.

    Parameters
    ----------
    seconds
        How long each part runs.
    json
        Print the figures as JSON.
    """
    from ledger.bench.commands import ingest as measure

    return measure(seconds=seconds, json=json)


@bench.command
def fold(*, events: int = 100_000, json: Json = False) -> int:
    """Measure events folded into the books per second, against a plain copy of the log.

    Parameters
    ----------
    events
        How many callbacks the log has.
    json
        Print the figures as JSON.
    """
    from ledger.bench.commands import fold as measure

    return measure(events=events, json=json)


@bench.command(name="reconcile")
def bench_reconcile(
    *, lines: int = 100_000,
    as_banks: Annotated[bool, Parameter(negative="")] = False,
    json: Json = False,
) -> int:  # fmt: skip
    """Measure matching statement lines with as many transactions: seconds and memory.

    Parameters
    ----------
    lines
        How many transactions there are; every fifth has a fee's line beside its own.
    as_banks
        Lines dated by days, with ids only among their names, as in camt.053 and MT940.
    json
        Print the figures as JSON.
    """
    from ledger.bench.statements.reconciliation import run as measure

    return measure(lines, as_banks=as_banks, json=json)


@bench.command(name="import")
def bench_import(
    *, lines: int = 100_000,
    format_: Annotated[
        tuple[Literal["straitsx-json", "camt.053", "mt940", "csv"], ...],
        Parameter(name="--format", negative=""),
    ] = ("straitsx-json", "camt.053", "mt940", "csv"),
    json: Json = False,
) -> int:  # fmt: skip
    """Measure importing statements, once and again: seconds and memory, for each format.

    Parameters
    ----------
    lines
        How many lines each file has.
    format_
        Only this format; several times for several.
    json
        Print the figures as JSON.
    """
    from ledger.bench.commands import import_statements as measure

    return measure(lines=lines, formats=format_, json=json)


@bench.command(name="rebuild")
def bench_rebuild(*, events: int = 100_000, processes: int = 2, json: Json = False) -> int:
    """Measure a rebuild: events per second, memory, answers meanwhile, against copying the log.

    Parameters
    ----------
    events
        How many callbacks the log has.
    processes
        Processes that fold.
    json
        Print the figures as JSON.
    """
    from ledger.bench.commands import rebuild as measure

    return measure(events=events, processes=processes, json=json)


@bench.command
def query(
    *,
    events: int = 100_000,
    customers: int = 100_000,
    processes: int = 2,
    requests: int = 300,
    json: Json = False,
) -> int:
    """Measure answers over HTTP, every list included, with and without a rebuild running.

    Parameters
    ----------
    events
        How many callbacks of the usual mix the log has.
    customers
        About how many customers the log has before these callbacks, with 9 callbacks each.
    processes
        Processes that fold during the rebuild.
    requests
        How often each request is sent while nothing is rebuilt.
    json
        Print the figures as JSON.
    """
    from ledger.bench.commands import query as measure

    return measure(
        events=events, customers=customers, processes=processes, requests=requests, json=json
    )


app.command(verify, group=PROVE)
app.command(prove, group=PROVE)
app.command(rebuild, group=PROVE)
app.command(seal)
app.command(export, group=PROVE)


def _settings() -> Any:
    from ledger.config.settings import load

    return load(os.environ)


def _json(document: object) -> None:
    import orjson

    sys.stdout.write(orjson.dumps(document).decode() + "\n")


def run(arguments: list[str]) -> int:
    """Run one command and return its exit status; every failure is one line on stderr."""
    status = UNFINISHED if PROVING & set(arguments[:1]) else OK
    try:
        result = app(arguments, exit_on_error=False, print_error=False)
        status = result if isinstance(result, int) else OK
        sys.stdout.flush()
    except CycloptsError as error:
        return _say(f"{error} See `ledger --help`.", USAGE)
    except BrokenPipeError:
        # The reader has seen enough (`| head`); nothing may be written at exit either.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except (Exception, KeyboardInterrupt, BaseExceptionGroup) as error:  # noqa: BLE001 - the last
        failed = status_of(error)
        is_found = failed == PROBLEM and status == UNFINISHED
        return _say(sentence(error), USAGE if is_found else failed)
    return status


def _say(words: str, status: int) -> int:
    with suppress(OSError):
        print(f"ledger: {' '.join(redact(words).split())}", file=sys.stderr, flush=True)
    return status


def main() -> None:
    """Run the command line of this process."""
    configure_decimal()
    raise SystemExit(run(sys.argv[1:]))
