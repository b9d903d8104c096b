"""Law: a search with an expression that `owner_of` accepts never takes long."""

from __future__ import annotations

import re
from time import process_time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ledger.config.owner_expression import check_expression
from ledger.payload import TEXT_MAX

SECONDS_MAX = 0.5
"""Some thirty times what the slowest accepted expression takes, for machines under load."""


def longest_text(text: str) -> str:
    return (text * TEXT_MAX)[:TEXT_MAX]


TEXTS = [longest_text(text) for text in ("a", "-", "1", "a-", "aaa-", "-a1", "a1", "cust-")]
TEXTS += ["a" * 256 + "-" * 256, "-" + "a" * 511, "a" * 500 + "-" * 12]


def seconds(expression: str, text: str) -> float:
    pattern = re.compile(expression)
    started = process_time()
    pattern.search(text)
    return process_time() - started


@pytest.mark.parametrize(
    "expression",
    [
        "(.+)", "(.*)", "^(.+)$", "^cust-(.+)-[0-9]+$", "cust-(.+)-[0-9]+$", r"(\w+)-\d+$",
        "(?:cust|user)-([^-]+)-", "^(?:po|fx)?-?cust-(.+?)-[0-9]{8}-[0-9]+$",
        r"\bcust_([A-Za-z0-9]+)_", "^(?:[^/]+/)*([^/]+)$", "([^:]+):.*", r"^\[(.+)\]\.[}\]]*$",
        "^[a-f0-9]{8}-(?:[a-f0-9]{4}-){3}([a-f0-9]{12})$", "^cust-([^-]++)", "^caf\u00e9 (.+)",
    ],
)  # fmt: skip
def test_expressions_that_identifiers_need_are_accepted(expression: str) -> None:
    check_expression(expression)
    assert max(seconds(expression, text) for text in TEXTS) < SECONDS_MAX


@pytest.mark.parametrize(
    ("expression", "reason"),
    [
        ("^(?:a+)+(b)$", "repeats (?:a+), which may match in several ways"),
        ("^(a|a)*b", "repeats (a|a), which"),
        ("^(?:a?){9}(b)", "repeats (?:a?), which"),
        ("^(?:)*(b)", "repeats (?:), which"),
        ("^(?:^)*(b)", "repeats (?:^), which"),
        ("a*a*(b)", "takes up to"),
        ("^a*a*a*(b)", "takes up to"),
        ("(?:^|a)a*a*(b)", "takes up to"),
        ("a?" * 40 + "(b)", "takes up to"),
        ("(?:a|a)" * 25 + "(b)", "takes up to"),
        ("^.*(?:a|a|a|a|a|a|a|a|a)-[^-]+-[^-]*!(b)|.*.*(b)", "takes up to"),
        ("(?i)a(b)", "has '(?i)a(b)', which is none of"),
        (r"(a)\1", r"has '\\1', which is none of"),
        ("(?=a)(b)", "has '(?=a)(b)', which is none of"),
        ("(?P<x>a)", "has '(?P<x>a)', which is none of"),
        ("(b){", "has '{', which is none of"),
        ("(b)[]x]", "has '[]x]', which is none of"),
    ],
)
def test_any_other_expression_is_refused_with_its_reason(expression: str, reason: str) -> None:
    re.compile(expression)
    with pytest.raises(ValueError, match=re.escape(reason)):
        check_expression(expression)


CHARACTERS = st.sampled_from(["a", "-", "1", ".", "[^-]", "[a-]", "[^a]", r"\w", r"\d", "[ab]"])
REPETITIONS = st.sampled_from(
    ["", "", "", "*", "+", "?", "*?", "+?", "++", "{2}", "{8,}", "{1,20}", "{0,60}", "{0,511}"]
)


def grouped(inner: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    branches = st.lists(inner, min_size=1, max_size=3).map("|".join)
    groups = st.builds("(?:{}){}".format, branches, REPETITIONS)
    return st.lists(inner | groups, min_size=1, max_size=4).map("".join)


PIECES = st.builds("{}{}".format, CHARACTERS, REPETITIONS)
EXPRESSIONS = st.builds(
    "{}{}{}".format,
    st.sampled_from(["", "^"]),
    st.recursive(PIECES, grouped, max_leaves=8),
    st.sampled_from(["", "(b)", "!()", "$()", "a" * 40 + "!()"]),
)


@settings(max_examples=500)
@given(EXPRESSIONS)
def test_no_accepted_expression_takes_long(expression: str) -> None:
    try:
        check_expression(expression)
    except ValueError:
        return
    assert max(seconds(expression, text) for text in TEXTS) < SECONDS_MAX
