"""The figures of a measurement for people: the machine, what was measured, what it used."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final

from rich import box
from rich.console import Console
from rich.table import Table

from ledger.terminal import tables

Row = tuple[str, str, str]

NONE: Final = "-"
DISTURBING: Final = {
    "others_cores": "other work on this machine",
    "withheld_cores": "withheld by the host of this machine",
}


def show(found: Mapping[str, Any], out: Console | None = None) -> None:
    """Print the figures of a measurement as tables."""
    out = out or tables.console()
    _print(out, "machine", _machine(found["machine"]))
    rows = _ROWS[found["bench"]](found)
    for name, words in DISTURBING.items():
        cores = found.get(name, found.get("fold", {}).get(name))
        if cores is not None:
            rows.append((words, number(cores), "cores; it disturbs the figures"))
    _print(out, f"ledger bench {found['bench']}", rows)
    verified = found["verified"]
    words = ", ".join(f"{name} {tables.text(value)}" for name, value in verified.items()
                      if name != "ok")  # fmt: skip
    right = "verified" if verified["ok"] else "WRONG"
    tables.line(out, f"{right}: {words}", "ok" if verified["ok"] else "fail")


def _print(out: Console, title: str, rows: Iterable[Row]) -> None:
    made = Table(
        title=title, title_justify="left", box=box.ROUNDED if out.is_terminal else None,
        show_header=False, pad_edge=out.is_terminal,
    )  # fmt: skip
    made.add_column()
    made.add_column(justify="right")
    made.add_column()
    for row in rows:
        made.add_row(*row)
    out.print(made)
    out.print()


def _machine(machine: Mapping[str, Any]) -> list[Row]:
    return [
        ("processor", str(machine["cpu"]), f"{machine['cores']} cores"),
        ("memory", number(machine["memory_mib"]), "MiB"),
        ("system", str(machine["kernel"]), ""),
        ("python", str(machine["python"]),
         f"{machine['event_loop']}, aiohttp {machine['aiohttp']}, asyncpg {machine['asyncpg']}"),
        ("postgresql", str(machine["postgresql"]), "embedded, fsync on"),
        ("fdatasync of 8 KiB", number(machine["fdatasync_us"]), "µs"),
    ]  # fmt: skip


def _ingest(found: Mapping[str, Any]) -> list[Row]:
    full, half, memory = found["saturation"], found["half_load"], found["memory"]
    return [
        ("callbacks", number(found["load"]["body_bytes"]),
         f"bytes each, signed, distinct, over {found['load']['connections']} connections"),
        ("saturation: ledger", number(full["ledger_per_second"]),
         f"callbacks/s  turns {_list(full['ledger_turns'])}"),
        ("saturation: no-op handler", number(full["noop_per_second"]),
         f"requests/s   turns {_list(full['noop_turns'])}"),
        ("ratio", f"{full['ratio']:.2f}",
         f"of the no-op handler; each turn against its neighbours {_shares(full['ratio_turns'])}"),
        ("saturation: INSERT per request", number(full["insert_per_second"]),
         f"callbacks/s  turns {_list(full['insert_turns'])}"),
        ("ledger is faster by", f"{full['insert_ratio']:.2f} ×",
         f"than checking and inserting one row; turns {_shares(full['insert_ratio_turns'])}"),
        ("saturation: with two balances", number(full["balances_per_second"]),
         f"callbacks/s  turns {_list(full['balances_turns'])}"),
        ("ledger is faster by", f"{full['balances_ratio']:.2f} ×",
         f"than doing that in the request's commit; turns {_shares(full['balances_ratio_turns'])}"),
        ("answer at saturation p50 / p99", _pair(full, "ledger_p50_ms", "ledger_p99_ms"),
         f"ms  (no-op {_pair(full, 'noop_p50_ms', 'noop_p99_ms')}, "
         f"INSERT {_pair(full, 'insert_p50_ms', 'insert_p99_ms')}, "
         f"with balances {_pair(full, 'balances_p50_ms', 'balances_p99_ms')})"),
        ("books behind after a turn", number(full["books_behind_events"]),
         f"events, caught up in {full['books_catch_up_seconds']} s"),
        ("folding such callbacks alone", number(full["fold_per_second"]),
         f"events/s  turns {_list(full['fold_turns'])}"),
        ("against receiving", f"{full['fold_ratio']:.2f}",
         f"each turn against its neighbours {_shares(full['fold_ratio_turns'])}"),
        ("CPU per callback", number(full["cpu_us_per_callback"]["web"]),
         f"µs in the receiver  (no-op {full['noop_cpu_us_per_request']['baseline']}, "
         f"and {full['service_cpu_us_per_noop_request']} of what the service still did beside it)"),
        ("CPU per callback elsewhere", "",
         f"µs: {_pairs({n: v for n, v in full['cpu_us_per_callback'].items() if n != 'web'})}"),
        ("half load: offered", number(half["offered_per_second"]),
         f"callbacks/s  answered {number(half['answered_per_second'])}"),
        ("answer p50 / p99", _pair(half, "p50_ms", "p99_ms"), "ms after the scheduled moment"),
        ("answer → visible p50 / p99", _pair(half, "visible_p50_ms", "visible_p99_ms"),
         f"ms  ({number(half['samples'])} samples)"),
        ("CPU per callback then", "", f"µs: {_pairs(half['cpu_us_per_callback'])}"),
        ("receiver memory start / middle / end",
         " / ".join(number(memory[f"web_{at}_mib"]) for at in ("start", "middle", "end")), "MiB"),
        ("peak memory", "", f"{_pairs(memory['peak_mib'])} MiB"),
        *_disk(found["disk"]),
    ]  # fmt: skip


def _fold(found: Mapping[str, Any]) -> list[Row]:
    fold = found["fold"]
    return [
        ("log", number(found["log"]["events"]),
         f"distinct callbacks, filled in {found['log']['fill_seconds']} s"),
        ("fold", number(fold["events_per_second"]), f"events/s  ({fold['seconds']} s)"),
        ("COPY of the log", number(fold["copy_per_second"]),
         f"events/s  ratio {fold['ratio']:.3f}"),
        ("projector", number(fold["projector_cpu_seconds"]),
         f"CPU seconds, peak {number(fold['projector_peak_mib'])} MiB"),
        ("evidence", number(fold["evidence_cpu_seconds"]),
         f"CPU seconds, peak {number(fold['evidence_peak_mib'])} MiB"),
        ("postgresql", number(fold["postgresql_cpu_seconds"]),
         f"CPU seconds, largest process {number(fold['postgresql_largest_peak_mib'])} MiB"),
        *_disk(found["disk"]),
    ]  # fmt: skip


def _rebuild(found: Mapping[str, Any]) -> list[Row]:
    done, traffic = found["rebuild"], found["traffic"]
    return [
        ("log", number(found["log"]["events"]),
         f"events, filled in {found['log']['fill_seconds']} s"),
        ("rebuild", number(done["events_per_second"]),
         f"events/s  ({done['seconds']} s with {done['processes']} processes)"),
        ("first load", number(done["first_per_second"]), "events/s"),
        *((stage, number(done["us_per_event"][stage]), f"µs per event  ({seconds} s)")
          for stage, seconds in done["stages"].items()),
        ("COPY of the log", number(done["copy_per_second"]),
         f"events/s  ratio {done['ratio']:.3f}"),
        ("memory", number(done["peak_mib"]),
         "MiB, the peaks of all processes added up; largest of PostgreSQL "
         f"{number(done['postgresql_largest_peak_mib'])}"),
        ("answers p50 / p99", _pair(traffic["peace"], "p50_ms", "p99_ms"),
         f"ms at {number(traffic['offered_per_second'])} callbacks/s in peace"),
        ("answers p50 / p99", _pair(traffic["rebuilding"], "p50_ms", "p99_ms"),
         f"ms while rebuilding; answers {_pairs(traffic['rebuilding']['answers'])}"),
        *_disk(found["disk"]),
    ]  # fmt: skip


def _query(found: Mapping[str, Any]) -> list[Row]:
    return [
        ("log", number(found["log"]["events"]),
         f"events, {number(found['log']['customers'])} customers, filled in "
         f"{found['log']['fill_seconds']} s"),
        *((name.replace("_", " "), _pair(figures, "p50_ms", "p99_ms"),
           f"ms p50 / p99; while rebuilding {_pair(found['rebuilding'][name], 'p50_ms', 'p99_ms')}")
          for name, figures in found["peace"].items()),
    ]  # fmt: skip


def _import(found: Mapping[str, Any]) -> list[Row]:
    rows: list[Row] = [("file", number(found["lines"]), "lines in each format")]
    for name, figures in found["formats"].items():
        rows += [
            (f"{name}: import", number(figures["lines_per_second"]),
             f"lines/s  ({figures['import']['seconds']} s, {figures['append_seconds']} s of them "
             "appending)"),
            ("imported again", f"{figures['again_ratio']:.2f}",
             f"of that time  ({figures['import_again']['seconds']} s)"),
            ("tried, before and afterwards", _pair_of(figures, "seconds", "try", "try_again"), "s"),
            ("memory, first and again", _pair_of(figures, "peak_mib", "import", "import_again"),
             f"MiB of {figures['file_mib']} MiB; address space "
             f"{_pair_of(figures, 'address_space_mib', 'import', 'import_again')} MiB"),
            ("other work on this machine", number(figures["others_cores"]), "cores"),
        ]  # fmt: skip
    return rows


def _pair_of(figures: Mapping[str, Any], name: str, first: str, second: str) -> str:
    return f"{number(figures[first][name])} / {number(figures[second][name])}"


def _disk(disk: Mapping[str, Any]) -> list[Row]:
    return [
        ("log on disk", number(disk["log_bytes_per_event"]),
         f"bytes per event, {number(disk['body_bytes_per_event'])} of them body"),
        ("books on disk", number(disk["books_bytes_per_event"]), "bytes per event"),
    ]  # fmt: skip


def number(value: float | None) -> str:
    """Spell a number with spaces between thousands; a dash where there is none."""
    if value is None:
        return NONE
    return f"{value:,}".replace(",", " ")


def _shares(values: Iterable[float]) -> str:
    return ", ".join(f"{value:.2f}" for value in values)


def _list(values: Iterable[float]) -> str:
    return ", ".join(number(value) for value in values)


def _pair(figures: Mapping[str, Any], first: str, second: str) -> str:
    return f"{number(figures[first])} / {number(figures[second])}"


def _pairs(figures: Mapping[str, float | None]) -> str:
    return ", ".join(f"{name} {number(value)}" for name, value in figures.items())


_ROWS: Final[Mapping[str, Callable[[Mapping[str, Any]], list[Row]]]] = {
    "ingest": _ingest,
    "fold": _fold,
    "rebuild": _rebuild,
    "query": _query,
    "import": _import,
}
"""Which measurement is shown how."""
