"""Commands by which operators act on reconciliations; all of them ask a running service."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Final, Literal, TypeAlias

from cyclopts import Parameter

from ledger.cli.options import FIRST_PAGE, NOW, Flag, Paging, ServiceOptions, SourceName
from ledger.cli.queries import PAGE_LIMIT_MAX, api, ask_service, write_raw
from ledger.cli.reconciliation import wait_for_result
from ledger.errors import InvalidRequest
from ledger.terminal.exit_status import OK, PROBLEM, UNFINISHED

ROWS_PER_REQUEST: Final = 500

Row = dict[str, Any]
OneCurrency: TypeAlias = Annotated[str | None, Parameter(help="Only this currency.")]
OneMonth: TypeAlias = Annotated[str | None, Parameter(help="Only this month, like 2026-06.")]


def decide(
    break_id: Annotated[str | None, Parameter(name="id")] = None,
    action: Literal["match", "write_off", "post_fee", "void", "reopen", "note"] | None = None,
    /, *,
    by: str, note: str | None = None,
    item: Annotated[tuple[str, ...], Parameter(negative="", show_default=False)] = (),
    account: str | None = None,
    from_: Annotated[Path | None, Parameter(name="--from", allow_leading_hyphen=True)] = None,
    yes: Flag = False, service: ServiceOptions = NOW,
) -> int:  # fmt: skip
    """Decide on a break, or with --from on many; each decision is an event of the log.

    --from first shows what each row of the file would do and post; nothing is done before --yes,
    or a yes on the terminal. Exit status: 1 when a row is refused, 3 when one is uncertain.

    Parameters
    ----------
    break_id
        The break's id, as `ledger reconcile breaks` lists it.
    action
        match, write_off, post_fee (to expenses:fees), void, reopen (take it back) or note.
    by
        Who decides.
    note
        Why. With --from: for the rows without a decision_note.
    item
        For match, several times: line:ID or KIND:ID. The break's own when not given.
    account
        Where a write-off goes, when not to the declared difference account.
    from_
        A CSV file with the columns id, decision, decision_account, decision_note and
        decision_items, as `ledger reconcile breaks --csv` writes it; - is standard input.
    yes
        With --from: take the decisions without asking.
    """
    from ledger.terminal import tables

    if from_ is not None:
        if break_id is not None or action is not None or item or account:
            raise InvalidRequest("--from takes the breaks and decisions from the file; name none")
        return _decide_from(from_, by, note, yes=yes, service=service)
    if break_id is None or action is None:
        raise InvalidRequest("name a break and what to decide about it, or a file with --from")
    if yes:
        raise InvalidRequest("--yes goes with --from")
    if note is None:
        raise InvalidRequest("say why with --note")
    body = {"action": action, "by": by, "note": note, "items": list(item), "account": account}
    given = {name: value for name, value in body.items() if value not in (None, [])}
    document, raw = ask_service(service, api("breaks", break_id, "decide"), {}, body=given)
    if service.json:
        return write_raw(raw)
    tables.show_one(document, tables.console())
    return OK


def _decide_from(
    path: Path, by: str, note: str | None, *, yes: bool, service: ServiceOptions
) -> int:
    """Preview the decisions of a file, and take them once they are confirmed."""
    from ledger.client.decision_file import read_decisions

    body = sys.stdin.buffer.read() if str(path) == "-" else path.read_bytes()
    file = read_decisions(body, by, note)
    refused: list[Row] = [
        {"line": each.line, "id": each.id, "outcome": "refused", "reason": each.reason}
        for each in file.refused
    ]
    preview = _send(service, file.rows, is_dry=True)
    planned = sum(row["outcome"] == "planned" for row in preview["decisions"])
    is_confirmed = yes
    if not service.json and not yes:
        _show(preview, refused, file.without_decision)
        is_confirmed = planned > 0 and str(path) != "-" and _is_confirmed(planned)
    document = _send(service, file.rows, is_dry=False) if is_confirmed and planned else preview
    document |= {
        "decisions": sorted([*document["decisions"], *refused], key=lambda row: row["line"]),
        "without_decision": file.without_decision,
    }
    if service.json:
        import orjson

        write_raw(orjson.dumps(document))
    elif is_confirmed:
        _show(document, [], file.without_decision)
    elif planned:
        print("ledger: nothing is done yet; --yes takes these decisions", file=sys.stderr)
    return _status(document)


def _send(service: ServiceOptions, rows: Sequence[tuple[int, Row]], *, is_dry: bool) -> Row:
    """Send the decisions in several requests; return their joined answers, rows with lines."""
    address = f"{api('breaks', 'decide')}?dry_run={'true' if is_dry else 'false'}"
    joined: Row = {"dry_run": is_dry, "decisions": [], "sums": [], "reconciled": True,
                   "message": None}  # fmt: skip
    for start in range(0, len(rows), ROWS_PER_REQUEST):
        some = rows[start : start + ROWS_PER_REQUEST]
        answer, _ = ask_service(service, address, {}, body=[decision for _, decision in some])
        for (line, _), row in zip(some, answer["decisions"], strict=True):
            joined["decisions"].append({"line": line, **row})
        joined["sums"] += answer["sums"]
        joined["reconciled"] = joined["reconciled"] and answer["reconciled"]
        joined["message"] = answer["message"] or joined["message"]
    joined["sums"] = _joined_sums(joined["sums"])
    return joined


def _joined_sums(sums: Sequence[Mapping[str, Any]]) -> list[Row]:
    """Add up the sums of several answers."""
    from decimal import Decimal

    from ledger.payload import plain

    found: dict[tuple[str, str, str], tuple[Decimal, int]] = {}
    for each in sums:
        key = each["source"], each["account"], each["currency"]
        amount, count = found.get(key, (Decimal(0), 0))
        found[key] = amount + Decimal(each["amount"]), count + each["count"]
    return [
        {"source": source, "account": account, "currency": currency, "amount": plain(amount),
         "count": count}
        for (source, account, currency), (amount, count) in sorted(found.items())
    ]  # fmt: skip


def _show(document: Mapping[str, Any], refused: Sequence[Row], without: int) -> None:
    """Print what each row does, the sums, and how many rows decide nothing."""
    from ledger.terminal import tables

    out = tables.console()
    rows = sorted([*document["decisions"], *refused], key=lambda row: row["line"])
    shown = [row | {"postings": _postings(row)} for row in rows]
    tables.show("decisions", {"decisions": shown}, out)
    if document["sums"]:
        tables.show("sums", {"sums": document["sums"]}, out)
    counts: dict[str, int] = {}
    for row in rows:
        counts[row["outcome"]] = counts.get(row["outcome"], 0) + 1
    parts = [f"{count} {name}" for name, count in sorted(counts.items())]
    out.print(", ".join([*parts, f"{without} without a decision"]))
    if document["message"]:
        print(f"ledger: {document['message']}", file=sys.stderr)


def _postings(row: Mapping[str, Any]) -> str:
    """Write what a row posts, beside the wallet's own side."""
    return ", ".join(
        f"{leg['amount']} {leg['account']}"
        for leg in row.get("legs", ())
        if not leg["account"].startswith("assets:wallet:")
    )


def _is_confirmed(count: int) -> bool:
    if not (sys.stdin.isatty() and sys.stdout.isatty()):
        return False
    answer = input(f"Take {count} decision{'s' * (count != 1)}? [y/N] ")
    return answer.strip().casefold() in ("y", "yes")


def _status(document: Mapping[str, Any]) -> int:
    outcomes = {row["outcome"] for row in document["decisions"]}
    if "failed" in outcomes:
        return UNFINISHED
    return PROBLEM if "refused" in outcomes else OK


def rules(*, source: SourceName = None, service: ServiceOptions = NOW) -> int:
    """List the declared rules that post differences, with count and sum of what each posted."""
    from ledger.terminal import tables

    document, raw = ask_service(service, api("reconciliation", "rules"), {"source": source})
    if service.json:
        return write_raw(raw)
    rows = [
        {**rule, "types": ", ".join(rule["types"]), **(posted or {})}
        for rule in document["rules"]
        for posted in rule["posted"] or [None]
    ]
    tables.show("rules", {"rules": rows}, tables.console())
    return OK


def close(
    period: str, /, *,
    by: str, note: str = "", source: SourceName = None, currency: OneCurrency = None,
    accept: Annotated[tuple[str, ...], Parameter(negative="", show_default=False)] = (),
    dry_run: Flag = False, service: ServiceOptions = NOW,
) -> int:  # fmt: skip
    """Close a month of every wallet that has a statement; it is an event of the log.

    Each must be reconciled through the end of the month; what stands in the way is listed, and
    then nothing is closed. Exit status: 1 when something stands in the way.

    Parameters
    ----------
    period
        The month: 2026-06.
    by
        Who closes.
    note
        What else is to be kept with it.
    accept
        An open break that is carried forward, several times.
    dry_run
        Only show what would be closed, and what stands in the way.
    """
    from ledger.terminal import tables

    order = {"period": period, "by": by, "note": note, "source": source, "currency": currency,
             "accept": list(accept)}  # fmt: skip
    body = {name: value for name, value in order.items() if value is not None}
    address = api("reconciliation", "closes")
    wait_for_result(service, source)
    preview, raw = ask_service(service, f"{address}?dry_run=true", {}, body=body)
    if not dry_run and not preview["obstacles"]:
        preview, raw = ask_service(service, address, {}, body=body)
    if service.json:
        write_raw(raw)
    else:
        out = tables.console()
        if preview["obstacles"]:
            tables.show("obstacles", preview, out)
            print("ledger: nothing is closed; see what stands in the way", file=sys.stderr)
        else:
            tables.show("closes", preview, out)
        for each in preview["skipped"]:
            tables.line(out, f"{each['source']} {each['currency']}: {each['detail']}", "ok")
    return PROBLEM if preview["obstacles"] else OK


def reopen(
    period: str, /, *,
    by: str, note: str, source: SourceName = None, currency: OneCurrency = None,
    service: ServiceOptions = NOW,
) -> int:  # fmt: skip
    """Reopen a closed month, the latest one of its wallets.

    Parameters
    ----------
    period
        The month: 2026-06.
    by
        Who reopens.
    note
        Why.
    """
    from ledger.terminal import tables

    order = {"by": by, "note": note, "source": source, "currency": currency}
    body = {name: value for name, value in order.items() if value is not None}
    address = api("reconciliation", "closes", period, "reopen")
    document, raw = ask_service(service, address, {}, body=body)
    if service.json:
        return write_raw(raw)
    tables.show("reopened", document, tables.console())
    return OK


def closes(
    *, source: SourceName = None, currency: OneCurrency = None, period: OneMonth = None,
    paging: Paging = FIRST_PAGE, service: ServiceOptions = NOW,
) -> int:  # fmt: skip
    """List closed months, and what was recorded for each after it was closed.

    Exit status: 1 when a closed month has changed.
    """
    from ledger.terminal import tables

    filters = {"source": source, "currency": currency, "period": period}
    limit = PAGE_LIMIT_MAX if paging.all and paging.limit is None else paging.limit
    params = {**filters, "limit": limit, "cursor": paging.cursor}
    document, raw = ask_service(
        service, api("reconciliation", "closes"), params, whole="closes" if paging.all else None
    )
    changed = [each for each in document["closes"] if (each["changes"] or {}).get("changed")]
    if service.json:
        write_raw(raw)
    else:
        out = tables.console()
        tables.show("closes", document, out)
        for each in changed:
            rows = [*each["changes"]["entries"], *each["changes"]["lines"]]
            out.print()
            tables.line(out, f"{each['source']} {each['currency']} {each['period']} has changed "
                        f"since it was closed, the ledger's balance by "
                        f"{each['changes']['ledger']}:", "warn")  # fmt: skip
            tables.show("later", {"later": [_change_row(row) for row in rows]}, out)
    return PROBLEM if changed else OK


def _change_row(row: Mapping[str, Any]) -> Row:
    dated = row.get("effective_at") or row.get("booked_at")
    name = row.get("transaction") or row.get("line")
    return {**row, "kind": row.get("kind") or "line", "id": name, "dated": dated}


def roll_forward(
    period: Annotated[str | None, Parameter(help="Only this month, with its breaks.")] = None, /, *,
    source: SourceName = None, currency: OneCurrency = None, service: ServiceOptions = NOW,
) -> int:  # fmt: skip
    """Show how the breaks of each wallet go from month to month: carried, opened, closed."""
    from ledger.terminal import tables

    filters = {"source": source, "currency": currency, "period": period}
    document, raw = ask_service(service, api("reconciliation", "roll-forward"), filters)
    if service.json:
        return write_raw(raw)
    out = tables.console()
    tables.show("roll_forward", document, out)
    items = [
        {"source": each["source"], "currency": each["currency"], **item}
        for each in document["roll_forward"]
        for item in each["items"]
    ]
    if items:
        tables.show("rolled", {"rolled": items}, out)
    return OK


COMMANDS: Final = (decide, rules, close, closes, reopen, roll_forward)
"""The commands of `ledger reconcile` that act, and those that show what they did."""
