"""What goes wrong between callbacks and statements: each fault is a story with what is planted."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from decimal import Decimal
from typing import Final

from ledger.model import changed, total
from ledger.simulator.deal import Deal
from ledger.simulator.story import OPENED_AT, PERIOD, Planted, SimulatedRow, Story, StoryMaker

LEAST: Final = Decimal("0.000001")
PLATFORM_FEE: Final = Decimal("0.5")
"""What StraitsX takes for incoming tokens; no callback names it (StraitsX business fees)."""
_DONE: Final = (("completed", 1),)


def _paid(maker: StoryMaker, currency: str = "") -> Story:
    return maker.story("payment", maker.odd(maker.deal(currency)), _DONE)


def _deal(story: Story) -> Deal:
    return story.steps[0][1]


def _plant(
    story: Story, kind: str, row: SimulatedRow | None, books: Decimal, statement: Decimal
) -> Story:
    """Name a fault of a story's first deal: the amounts in the books and on the statement."""
    d = _deal(story)
    story.planted.append(
        Planted(
            type=kind,
            line_id=row.id if row else None,
            transaction_id=d.id,
            amount=row.amount if row else books,
            currency=d.currency.upper(),
            differences=((d.currency.upper(), total(books, statement.copy_negate())),),
        )
    )
    return story


def missing_payment(maker: StoryMaker) -> Story:
    """The callback reports completed, the statement has nothing: a shortage."""
    story = _paid(maker)
    story.rows.clear()
    return _plant(story, "MISSING_AT_PROVIDER", None, _deal(story).amount, Decimal(0))


def missing_payout(maker: StoryMaker) -> Story:
    """A payout that never left the wallet."""
    story = maker.story("payout", maker.odd(maker.deal()), _DONE)
    story.rows.clear()
    return _plant(story, "MISSING_AT_PROVIDER", None, -_deal(story).amount, Decimal(0))


def _unknown(story: Story) -> Story:
    """Keep the rows without the callbacks."""
    row = story.rows[0]
    planted = Planted("MISSING_IN_LEDGER", row.id, None, row.amount, row.currency,
                   ((row.currency, -row.amount),))  # fmt: skip
    return Story([], story.rows, [planted])


def surplus(maker: StoryMaker) -> Story:
    """Money came in that no callback reported."""
    return _unknown(_paid(maker))


def admin_debit(maker: StoryMaker) -> Story:
    """The provider took money by hand; such rows name no contract."""
    d = maker.odd(maker.deal())
    row = maker.row(d, "Admin", -d.amount, contract_id="", idempotency_id="")
    return _unknown(Story([], [row]))


def least_amount(maker: StoryMaker) -> Story:
    """The statement has the smallest unit more."""
    story = _paid(maker, "xsgd")
    return _amount(story, LEAST)


def offsetting(maker: StoryMaker) -> Story:
    """Two amounts are wrong, and the total is right."""
    more = _amount(_paid(maker, "xusd"), Decimal(1))
    less = _amount(_paid(maker, "xusd"), Decimal(-1))
    return more.then(less)


def _amount(story: Story, difference: Decimal) -> Story:
    books = story.rows[0].amount
    story.rows[0] = changed(story.rows[0], amount=books + difference)
    return _plant(story, "AMOUNT", story.rows[0], books, story.rows[0].amount)


def fee_unknown_to_us(maker: StoryMaker) -> Story:
    """The statement has a fee that the callback did not name."""
    story = _paid(maker)
    fee = maker.row(_deal(story), "Fee", Decimal("-2.5"))
    story.rows.append(changed(fee, at=story.rows[0].at))
    return _plant(story, "FEE", fee, Decimal(0), fee.amount)


def fee_not_taken(maker: StoryMaker) -> Story:
    """The callback names a fee that the statement does not have."""
    d = replace(maker.odd(maker.deal()), fees=Decimal("1.25"))
    story = maker.story("payout", d, _DONE)
    story.rows = [row for row in story.rows if row.kind != "Fee"]
    return _plant(story, "FEE", None, -d.fees, Decimal(0))


def platform_fee(maker: StoryMaker) -> Story:
    """Incoming tokens cost a fee that is in no field of a callback."""
    story = maker.story("chain_deposit", maker.odd(maker.deal("xsgd")), _DONE)
    fee = maker.row(_deal(story), "Fee", -PLATFORM_FEE)
    story.rows.append(changed(fee, at=story.rows[0].at))
    return _plant(story, "FEE", fee, Decimal(0), fee.amount)


def duplicate(maker: StoryMaker) -> Story:
    """The statement has the same line twice, under two ids."""
    story = _paid(maker)
    twin = changed(maker.row(_deal(story), story.rows[0].kind, story.rows[0].amount),
                   at=story.rows[0].at, reference=story.rows[0].reference)  # fmt: skip
    story.rows.append(twin)
    return _plant(story, "DUPLICATE_PROVIDER", twin, Decimal(0), twin.amount)


def direction(maker: StoryMaker) -> Story:
    """The statement debits what came in by the callback."""
    story = _paid(maker)
    books = story.rows[0].amount
    story.rows[0] = changed(story.rows[0], amount=-books)
    return _plant(story, "DIRECTION", story.rows[0], books, -books)


def in_transit(maker: StoryMaker) -> Story:
    """Completed just before the period's end; the row is in the next period."""
    maker.created = OPENED_AT + PERIOD - timedelta(seconds=90)
    story = _paid(maker)
    story.rows.clear()
    return _plant(story, "TIMING", None, _deal(story).amount, Decimal(0))


def over_midnight(maker: StoryMaker) -> Story:
    """The row has another day than the callback, in UTC or in Singapore: nothing is wrong."""
    hour = maker.rng.choice((0, 16))
    midnight = maker.created.replace(hour=hour, minute=0, second=0, microsecond=0)
    if midnight <= OPENED_AT:
        midnight += timedelta(days=1)
    maker.created = midnight - timedelta(seconds=75)
    story = _paid(maker)
    story.rows[0] = changed(story.rows[0], at=midnight + timedelta(seconds=30))
    return story


def ambiguous(maker: StoryMaker) -> Story:
    """Two equal payments in one minute, and rows that name neither."""
    one = maker.odd(maker.deal())
    two = replace(maker.deal(one.currency), amount=one.amount, fees=one.fees)
    first = maker.story("payment", one, _DONE).unnamed(keep_reference=False)
    second = maker.story("payment", two, _DONE).unnamed(keep_reference=False)
    stories = [_plant(s, "AMBIGUOUS", s.rows[0], s.rows[0].amount, s.rows[0].amount)
               for s in (first, second)]  # fmt: skip
    return stories[0].then(stories[1])


def currency(maker: StoryMaker) -> Story:
    """The callback names USD, the provider booked XUSD."""
    story = _paid(maker, "usd")
    row = story.rows[0] = changed(story.rows[0], currency="XUSD")
    differences = (("USD", row.amount), ("XUSD", -row.amount))
    planted = Planted("CURRENCY", row.id, _deal(story).id, row.amount, row.currency, differences)
    return Story(story.steps, story.rows, [planted])


FAULTS: Final[tuple[Callable[[StoryMaker], Story], ...]] = (
    missing_payment, missing_payout, surplus, admin_debit, least_amount, offsetting,
    fee_unknown_to_us, fee_not_taken, platform_fee, duplicate, direction, in_transit,
    over_midnight, ambiguous, currency,
)  # fmt: skip
"""Every fault; `over_midnight` plants nothing, since nothing may be reported of it."""
