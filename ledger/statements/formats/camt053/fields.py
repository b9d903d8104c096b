"""The fields of an XML element by their paths: `BkTxCd/Domn/Cd`, `Amt@Ccy`; namespaces left out."""

from __future__ import annotations

from collections.abc import Iterator
from xml.etree.ElementTree import Element

from ledger.statements.validation import text

__all__ = ["Fields", "add_fields", "fields_of", "local_name"]


class Fields(dict[str, list[str]]):
    """The texts of an element by path, trimmed, without blank ones, in the file's order."""

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


def local_name(node: Element) -> str:
    """Return an element's name without its namespace."""
    return node.tag.rpartition("}")[2]


def fields_of(node: Element) -> Fields:
    """Return the fields within an element, by paths that begin with its children."""
    fields = Fields()
    add_fields(fields, node, "")
    return fields


def add_fields(fields: Fields, node: Element, path: str) -> None:
    """Add the fields of an element whose path is known; the walk has bounded its depth."""
    if node.text:
        words = node.text.strip()
        if words:
            fields.setdefault(path, []).append(words)
    for name, value in node.attrib.items():
        fields.setdefault(f"{path}@{name.rpartition('}')[2]}", []).append(value.strip())
    prefix = f"{path}/" if path else ""
    for child in node:
        add_fields(fields, child, prefix + child.tag.rpartition("}")[2])
