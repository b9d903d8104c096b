"""Conversion of settings to their types by msgspec, with errors in sentences."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from typing import Any, Final, TypeVar

import msgspec
from msgspec import inspect

T = TypeVar("T", bound=msgspec.Struct)

_NUMBERS: Final[Mapping[type[inspect.Type], Callable[[str], Any]]] = {
    inspect.IntType: int,
    inspect.FloatType: float,
}
_WORDS: Final[Mapping[type[inspect.Type], str]] = {
    inspect.StrType: "a text",
    inspect.BoolType: "true or false",
    inspect.DateTimeType: "a time with a zone, as 2026-06-01T00:00:00Z",
    inspect.DictType: "a table",
    inspect.ListType: "a list of texts",
    inspect.VarTupleType: "a list of texts",
}


def convert(value: Any, kind: Any) -> Any:
    """Return a value as a type. Raises ValueError, which states what the type accepts."""
    try:
        return msgspec.convert(value, kind)
    except msgspec.ValidationError as error:
        raise ValueError(f"expected {_accepted(kind)}") from error


def convert_text(text: str, kind: Any) -> Any:
    """Return a text, as the environment has it, as a type. Blanks around it are cut.

    Numbers are written as Python's int() and float() read them. Raises ValueError.
    """
    stripped = text.strip()
    if text and not stripped:
        raise ValueError("it holds only blanks; remove it or set a value")
    for member in _members(kind):
        if type(member) in _NUMBERS:
            try:
                return convert(_NUMBERS[type(member)](stripped), kind)
            except ValueError as error:
                raise ValueError(f"expected {_accepted(kind)}") from error
    return convert(stripped, kind)


def convert_table(
    table: Mapping[str, Any], kind: type[T], secrets: Collection[str], prefix: str = ""
) -> T:
    """Return a table, whose keys are known to be of `kind`, as a Struct.

    Raises ValueError, which names the key after `prefix` and quotes its value unless it is one of
    `secrets`.
    """
    values = {}
    for field in msgspec.structs.fields(kind):
        if field.name not in table:
            continue
        try:
            values[field.name] = convert(table[field.name], field.type)
        except ValueError as error:
            given = "" if field.name in secrets else f" = {table[field.name]!r}"
            raise ValueError(f"{prefix}{field.name}{given} is not valid: {error}") from error
    return kind(**values)


def _members(kind: Any) -> list[inspect.Type]:
    """Return the types of a union, except None, or the one type."""
    info = inspect.type_info(kind)
    types = info.types if isinstance(info, inspect.UnionType) else (info,)
    return [each for each in types if not isinstance(each, inspect.NoneType)]


def _accepted(kind: Any) -> str:
    return " or ".join(_described(member) for member in _members(kind))


def _described(info: inspect.Type) -> str:
    if isinstance(info, inspect.LiteralType):
        return f"one of {', '.join(map(str, info.values))}"
    if isinstance(info, inspect.IntType):
        return f"a whole number{_bounds(info)}"
    if isinstance(info, inspect.FloatType):
        return f"a number{_bounds(info)}"
    return _WORDS[type(info)]


def _bounds(info: inspect.IntType | inspect.FloatType) -> str:
    if info.ge is not None and info.le is not None:
        return f" from {info.ge} to {info.le}"
    bounds = {"at least": info.ge, "above": info.gt, "at most": info.le, "below": info.lt}
    parts = [f"{word} {bound}" for word, bound in bounds.items() if bound is not None]
    return f", {' and '.join(parts)}" if parts else ""
