"""Commands by which operators act on reconciliations; all of them ask a running service."""

from __future__ import annotations

from typing import Annotated, Final, Literal

from cyclopts import Parameter

from ledger.cli.options import NOW, ServiceOptions
from ledger.cli.queries import api, ask_service, write_raw


def decide(
    break_id: Annotated[str, Parameter(name="id")],
    action: Literal["match", "write_off", "post_fee", "void", "reopen", "note"], /, *,
    by: str, note: str,
    item: Annotated[tuple[str, ...], Parameter(negative="", show_default=False)] = (),
    account: str | None = None, service: ServiceOptions = NOW,
) -> int:  # fmt: skip
    """Decide on a break; the decision is an event of the log and posts what ACTION says.

    Parameters
    ----------
    break_id
        The break's id, as `ledger reconcile breaks` lists it.
    action
        match, write_off, post_fee (to expenses:fees), void, reopen (take it back) or note.
    by
        Who decides.
    note
        Why.
    item
        For match, several times: line:ID or KIND:ID. The break's own when not given.
    account
        Where a write-off goes, when not to the declared difference account.
    """
    from ledger.terminal import tables

    body = {"action": action, "by": by, "note": note, "items": list(item), "account": account}
    given = {name: value for name, value in body.items() if value not in (None, [])}
    document, raw = ask_service(service, api("breaks", break_id, "decide"), {}, body=given)
    if service.json:
        return write_raw(raw)
    tables.show_one(document, tables.console())
    return 0


COMMANDS: Final = (decide,)
"""The commands of `ledger reconcile` that act."""
