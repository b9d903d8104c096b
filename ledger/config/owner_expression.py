"""What the expression of `owner_of` may be, so that a search with it never takes long.

Python's `re` tries one way after the other, and a repetition within a repetition has more ways than
can be tried. So an expression is read here, and its steps are counted: the steps of a piece are
taken once for each way in which what is before it matches. It may consist of characters, `.`,
classes, `\\d \\w \\s`, anchors, alternatives, groups and repetitions, of which none repeats what
matches in several ways itself.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Final

from ledger.payload import TEXT_MAX

STEPS_MAX: Final = 4_000_000
"""Steps that a search in a text of TEXT_MAX characters may take; some ten milliseconds."""

_ITEM: Final = re.compile(
    r"""(?P<anchor> [\^$] | \\[AZbB])
      | (?P<character> \\[^\w\s] | [^\\^$.|?*+()\[{])
      | (?P<several> \. | \\[dDwWsS] | \[ \^? (?: \\[dDwWsS] | \\[^\w\s] | [^\]\[\\] )+ \])
      | (?P<group> \( (?: \?: | (?!\?) ))""",
    re.VERBOSE | re.DOTALL,
)
_REPETITION: Final = re.compile(
    r"(?: ([*+?]) | \{ (?=[\d,]) (\d*) (,?) (\d*) \} ) [?+]?", re.VERBOSE | re.ASCII
)
_OF_SIGN: Final = {"*": (0, TEXT_MAX), "+": (1, TEXT_MAX), "?": (0, 1)}


@dataclass(frozen=True, slots=True)
class Piece:
    """A piece of an expression: how often it is repeated, and what matching it once takes."""

    one: str = ""
    """The expression of the one character that it matches; "" = another number of them."""
    literal: str = ""
    """The character itself, where it can be no other."""
    ways: int = 1
    """In how many ways it matches, once, at one place."""
    steps: int = 1
    least: int = 1
    """Characters that it matches at least, once."""
    low: int = 1
    high: int = 1
    is_start: bool = False
    """Whether it only matches at the beginning of the text."""

    @property
    def is_repeated(self) -> bool:
        """Whether it may match several numbers of times."""
        return self.high > self.low

    def excludes(self, other: Piece | None) -> bool:
        """Tell whether another piece is one character, once, that this one never matches."""
        if other is None or not other.literal or (other.low, other.high) != (1, 1):
            return False
        return bool(self.one) and re.fullmatch(self.one, other.literal, re.DOTALL) is None


def check_expression(expression: str) -> None:
    """Check that a search with an expression takes at most STEPS_MAX steps. Raises ValueError.

    `re` can compile it.
    """
    branches = _Reader(expression).read()
    is_anchored = all(branch and branch[0].is_start for branch in branches)
    _, steps = _cost(branches, is_whole=True)
    steps *= 1 if is_anchored else TEXT_MAX
    if steps > STEPS_MAX:
        raise ValueError(
            f"takes up to {steps:,} steps, more than {STEPS_MAX:,}: begin it with ^, limit how "
            "often it repeats, as [0-9]{1,20} does, or end a repetition at a sign that it does not "
            "match, as [^-]+- does"
        )


def _cost(branches: Sequence[Sequence[Piece]], *, is_whole: bool = False) -> tuple[int, int]:
    """Return the ways and the steps of alternatives."""
    costs = [_cost_of_sequence(branch, is_whole=is_whole) for branch in branches]
    return sum(ways for ways, _ in costs), sum(steps for _, steps in costs)


def _cost_of_sequence(pieces: Sequence[Piece], *, is_whole: bool) -> tuple[int, int]:
    """Return the ways and the steps of pieces one after the other.

    Of the ways, `apart` end at different places whatever the other choices are. Behind them, runs
    of what cannot match the character before it add up to the length of the text.
    """
    ways = apart = 1
    steps = 0
    for place, piece in enumerate(pieces):
        before = pieces[place - 1] if place else None
        after = pieces[place + 1] if place + 1 < len(pieces) else None
        once = piece.steps * piece.high + 1
        if is_whole and after is None and piece.one:
            # Where the last piece matches, the search ends.
            return ways, steps + ways * (piece.low + 1) + once
        if piece.is_repeated and piece.excludes(after):
            steps += 2 * ways * once
            apart = 1
        elif piece.is_repeated and piece.excludes(before):
            others = ways // apart
            ways += others * TEXT_MAX
            apart = ways // others
            steps += 2 * ways
        else:
            found = piece.high - piece.low + piece.ways
            steps += ways * once
            ways *= found
            own = found if piece.ways == 1 else 1
            apart = max(apart, own) if piece.one else own
    return ways, steps


class _Reader:
    """Reads an expression from left to right."""

    def __init__(self, expression: str) -> None:
        self.text = expression
        self.place = 0

    def read(self) -> list[list[Piece]]:
        """Return the pieces of each alternative. Raises ValueError for what may not be there."""
        branches: list[list[Piece]] = [[]]
        while self.place < len(self.text) and self.text[self.place] != ")":
            if self.text[self.place] == "|":
                self.place += 1
                branches.append([])
            else:
                branches[-1] += self._pieces()
        return branches

    def _pieces(self) -> list[Piece]:
        """Read one piece with its repetition; a group that is not repeated is the pieces in it."""
        start = self.place
        item = _ITEM.match(self.text, start)
        if item is None:
            raise ValueError(
                f"has {self.text[start : start + 8]!r}, which is none of what it may consist of: "
                r"characters (with a \ before a sign), . [...] \d \w \s ^ $ | (...) (?:...) * + ? "
                "{1,20}"
            )
        self.place = item.end()
        written = item[0]
        branches: list[list[Piece]] = []
        match item.lastgroup:
            case "anchor":
                piece = Piece(least=0, is_start=written in ("^", r"\A"))
            case "character":
                piece = Piece(one=written, literal=written[-1])
            case "several":
                piece = Piece(one=written)
            case _:
                branches = self.read()
                self.place += 1  # the ")" is there: `re` compiled it
                ways, steps = _cost(branches)
                least = min(sum(each.least * each.low for each in branch) for branch in branches)
                piece = Piece(ways=ways, steps=steps, least=least)
        repeated = self._repeated(piece, self.text[start : self.place])
        if item.lastgroup == "group" and len(branches) == 1 and repeated == piece:
            return branches[0]
        return [repeated]

    def _repeated(self, piece: Piece, written: str) -> Piece:
        """Read how often a piece is repeated."""
        found = _REPETITION.match(self.text, self.place)
        if found is None:
            return piece
        self.place = found.end()
        low, high = _bounds(found)
        if high > 1 and (piece.ways > 1 or not piece.least):
            raise ValueError(
                f"repeats {written}, which may match in several ways, or nothing: such a search "
                "may never end; write a class, as [a-z0-9]+, or each repetition by itself"
            )
        return replace(piece, low=low, high=high)


def _bounds(found: re.Match[str]) -> tuple[int, int]:
    sign, low, comma, high = found.groups()
    if sign:
        return _OF_SIGN[sign]
    least = min(int(low or 0), TEXT_MAX)
    if not comma:
        return least, least
    return least, max(least, min(int(high), TEXT_MAX) if high else TEXT_MAX)
