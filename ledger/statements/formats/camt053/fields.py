"""The fields of an XML element by their paths: `BkTxCd/Domn/Cd`, `Amt@Ccy`; namespaces left out."""

from __future__ import annotations

from collections.abc import Iterator

from ledger.statements.validation import text

__all__ = ["Fields"]


class Fields(dict[str, list[str]]):
    """The texts of an element by path, trimmed, without blank ones, in the file's order.

    The element's own text has the path "".
    """

    def add(self, path: str, words: str) -> None:
        """Add a text; a blank one is none."""
        trimmed = words.strip()
        if trimmed:
            self.setdefault(path, []).append(trimmed)

    def first(self, *paths: str) -> str:
        """Return the first text under the first of the paths that has one; "" without any."""
        for path in paths:
            texts = self.get(path)
            if texts:
                return texts[0]
        return ""

    def every(self, *paths: str) -> Iterator[str]:
        """Yield all texts under the paths."""
        for path in paths:
            yield from self.get(path, ())

    def name(self, number: int, path: str) -> str:
        """Return a reference of entry `number`. Raises StatementRefused when it is too long."""
        return text(number, path.rpartition("/")[2], self.first(path)) or ""
