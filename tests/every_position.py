"""Records what a service answers at every position, and asks again as of each of them."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass, field
from random import Random
from typing import Any, Final, TypeAlias

from ledger.api.routes import all_routes
from ledger.simulator.simulate import SimulatedCallback
from tests.asking import Json, Service, problem

ROWS_MAX: Final = 1_000
LISTS: Final = tuple(
    route.path for route in all_routes() if route.is_dated and "{" not in route.path
)
"""Every list that answers as-of, views included."""
PEOPLE: Final = ("bank_accounts", "virtual_accounts", "limits", "limit_requests", "rfi")
STATUSES: Final = ("status", "verification_status")

Step: TypeAlias = SimulatedCallback | Callable[[Service], Awaitable[object]]
"""A callback to post, or anything else that appends to a log (a decision, a statement)."""
Positions: TypeAlias = dict[str, int]


@dataclass
class EveryPosition:
    """The answers of a service at every position that it has been at."""

    service: Service
    lists: Sequence[str] = LISTS
    customers: Sequence[str] = ()
    """Customers of straitsx that are asked for one by one."""
    with_transactions: bool = True
    """Whether every transaction is asked for as well."""
    recorded: list[tuple[Positions, dict[str, Json]]] = field(default_factory=list)

    async def play(self, steps: Iterable[Step]) -> None:
        """Take one step after the other; fold and record the answers after each."""
        await self.record()
        for step in steps:
            if isinstance(step, SimulatedCallback):
                await self.service.post(step.provider, step.body, step.event)
            else:
                await step(self.service)
            await self.record()

    async def record(self) -> None:
        """Fold to the end of every log and record all answers."""
        await self.service.fold()
        answers = {path: await self._get(path, limit=ROWS_MAX) for path in self.lists}
        if self.with_transactions:
            for row in (await self._get("/v1/transactions", limit=ROWS_MAX))["transactions"]:
                path = f"/v1/transactions/{row['source']}/{row['id']}"
                answers[path] = await self._get(path, kind=row["kind"])
        for id_ in self.customers:
            path = f"/v1/customers/straitsx/{id_}"
            answers[path] = await self._get(path)
        position = (await self.service.ask("/v1/status"))["position"]
        if not self.recorded or self.recorded[-1][0] != position:
            self.recorded.append((position, answers))

    async def check(self) -> None:
        """Ask everything again as of each recorded position: the answers are the same."""
        # A source may have come later; then it was at 0.
        zero = dict.fromkeys(self.recorded[-1][0], 0)
        for place, answers in self.recorded:
            position = ",".join(f"{source}:{at}" for source, at in (zero | place).items())
            for path, was in answers.items():
                if path in self.lists:
                    was = was | {"position": zero | was["position"]}
                    now = await self._get(path, limit=ROWS_MAX, position=position)
                    assert _differing(now, was, _rows_of(path)) == [], (path, place)
                else:
                    await self._check_one(path, was, place)

    async def _check_one(self, path: str, was: Json, place: Positions) -> None:
        source = path.split("/")[3]
        kind = {"kind": was["kind"]} if "kind" in was else {}
        now = await self._get(path, position=place[source], **kind)
        # The request is not about other sources, which have moved on.
        now, was = _of_source(now, source), _of_source(was, source)
        differing = {name: (now.get(name), was.get(name)) for name in now.keys() | was.keys()
                     if now.get(name) != was.get(name)}  # fmt: skip
        assert differing == {}, (path, place)

    async def check_filters(self, rng: Random, tries: int) -> None:
        """Filter lists as of recorded positions by what rows had then, or have at another time."""
        paths = [
            path for path in self.lists if path.startswith("/v1/views/") or _rows_of(path) in PEOPLE
        ]
        views = {
            f"/v1/views/{view['table']}": view
            for view in (await self.service.ask("/v1/views"))["views"]
        }
        for _ in range(tries):
            path = rng.choice(paths)
            name = _rows_of(path)
            view = views.get(path)
            filters = view["filters"] if view else ["source", "customer_id", *STATUSES]
            rows = rng.choice(self.recorded)[1][path][name]
            place, answers = rng.choice(self.recorded)
            row = rng.choice(rows) if rows else {}
            known = [column for column in filters if row.get(column) is not None]
            if not known:
                continue
            column = rng.choice(known)
            needs = view["needs"].get(column, []) if view else []
            given = {each: row[each] for each in (*needs, column)}
            place = dict.fromkeys(self.recorded[-1][0], 0) | place
            position = ",".join(f"{source}:{at}" for source, at in place.items())
            if "source" in given:
                position = str(place[given["source"]])
            texts = {each: str(value).lower() if value in (True, False) else value
                     for each, value in given.items()}  # fmt: skip
            found = [
                row
                for page in await self.service.pages(
                    path, name, position=position, limit=rng.choice([1, 3, ROWS_MAX]), **texts
                )
                for row in page
            ]
            expected = [each for each in answers[path][name] if given.items() <= _scalars(each)]
            assert found == expected, (path, place, given)

    async def _get(self, path: str, **params: Any) -> Json:
        """Ask, and leave out of the answer what only an as-of has."""
        async with self.service.client.get(path, params=params) as response:
            if response.status != 200:
                return {"status": (await problem(response))[0]}
            answer: Json = await response.json()
        answer.pop("as_of", None)
        return answer


def _rows_of(path: str) -> str:
    """Return the field of a list's answer that has its rows."""
    return "rows" if path.startswith("/v1/views/") else path.rpartition("/")[2]


def _scalars(row: Json) -> Any:
    return {
        name: value for name, value in row.items() if not isinstance(value, list | dict)
    }.items()


def _differing(now: Json, was: Json, name: str) -> list[tuple[str, Any, Any]]:
    """Return what differs of two answers, so that a failure shows it."""
    if now.keys() != was.keys():
        return [("fields", now, was)]
    found = [(key, now[key], was[key]) for key in now.keys() - {name}]
    found += [(name, len(now[name]), len(was[name]))]
    for one, other in zip(now[name], was[name], strict=False):
        found += [(key, one.get(key), other.get(key)) for key in one.keys() | other.keys()]
    return [each for each in found if each[1] != each[2]]


def _of_source(answer: Json, source: str) -> Json:
    return answer | {"position": answer.get("position", {}).get(source)}


async def decide(service: Service, rng: Random) -> None:
    """Keep one of the facts of an open conflict, if there is one."""
    rows = (await service.ask("/v1/exceptions", state="open", reason="conflict"))["exceptions"]
    if not rows:
        return
    row = rng.choice(rows)
    events = await service.ask("/v1/events", kind=row["kind"], resource_id=row["resource_id"])
    keep = rng.choice([event["position"] for event in events["events"]])
    path = f"/v1/exceptions/{row['id']}/resolve"
    async with service.client.post(path, json={"action": "keep", "keep": keep}) as response:
        await response.read()
