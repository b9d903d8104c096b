"""What printed pages share: their style, tables and links. Pure."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Iterable, Sequence
from html import escape
from typing import Any, Final

STYLE: Final = """
body{font:14px/1.45 system-ui,sans-serif;color:#1b1f24;max-width:72rem;
margin:2rem auto;padding:0 1rem}
h1{font-size:1.5rem;margin:0 0 .2rem}h2{font-size:1.05rem;margin:1.8rem 0 .4rem}
h3{font-size:1.1em;margin:0;display:flex;gap:.6rem;align-items:baseline}
h3 .n{margin-left:auto;font-variant-numeric:tabular-nums}
h4{font-size:.92em;margin:0;color:#57606a;font-weight:600}
p{margin:.3rem 0;max-width:60rem}a{color:#0b57b0;text-decoration:none}
a:hover{text-decoration:underline}
table{border-collapse:collapse;width:100%}
th,td{text-align:left;vertical-align:top;padding:.25rem .8rem .25rem 0;
border-bottom:1px solid #d8dde3}
th:last-child,td:last-child{padding-right:0}
th{font-weight:600}td.n,th.n{text-align:right;white-space:nowrap;font-variant-numeric:tabular-nums}
td{overflow-wrap:break-word}td.t{white-space:nowrap}td.w{overflow-wrap:anywhere}
tr.sum td{font-weight:600;border-top:2px solid #1b1f24}
table.narrow{width:auto;min-width:min(26rem,100%)}
code{font:12px ui-monospace,monospace;overflow-wrap:anywhere}
.state{display:inline-block;padding:.1em .6em;border:1px solid;border-radius:1rem;
font-weight:600;font-size:.85em;white-space:nowrap}
.RECONCILED,.RECONCILED_WITH_TIMING,.RESOLVED{color:#14632f}.BREAKS,.OPEN{color:#a4161a}
.INCOMPLETE,.TIMING{color:#8a5a00}.soft{color:#57606a}
section{border:1px solid #d8dde3;border-radius:.4rem;padding:.6rem .8rem;margin:.7rem 0}
section td{border:0;padding:.1rem .6rem .1rem 0}section td.t,section td.n{width:1%}
.sides td{overflow-wrap:anywhere}.sides td.t,.sides td.n{overflow-wrap:normal}
section ul{margin:.1rem 0 .3rem;padding-left:1.2rem}section li{overflow-wrap:anywhere}
.sides{display:grid;grid-template-columns:minmax(0,1fr) minmax(0,1fr);gap:1.2rem;margin:.4rem 0}
.more{margin:.2rem 0}
@media screen and (max-width:50rem){.sides{grid-template-columns:minmax(0,1fr)}
body>table{display:block;overflow-x:auto}}
@media print{body{margin:0;font-size:10px;line-height:1.3;max-width:none}
tr,section{break-inside:avoid}section{padding:.3rem .5rem;margin:.4rem 0}
.sides{margin:.1rem 0;gap:.8rem}section p,section ul{margin:.1rem 0}code{font-size:9px}
h2,h3{break-after:avoid}a{color:inherit}@page{margin:15mm}}
"""
STYLE_HASH: Final = "sha256-" + base64.b64encode(hashlib.sha256(STYLE.encode()).digest()).decode()
"""For the page's Content-Security-Policy: this style and nothing else."""

NOT_STATED: Final = "not stated"
"""Instead of a figure that no statement states."""


class Markup(str):
    """Text that is HTML already; everything else is escaped."""

    __slots__ = ()


def document(title: str, parts: Iterable[str]) -> bytes:
    """Return a whole page."""
    head = (
        "<!doctype html><html lang=en><meta charset=utf-8>",
        '<meta name=viewport content="width=device-width,initial-scale=1">',
        f"<title>{escape(title)}</title><style>{STYLE}</style>",
    )
    return "\n".join((*head, *parts, "</html>\n")).encode()


def html(value: Any) -> str:
    """Return a value as HTML: escaped, unless it is Markup; "" for None."""
    return value if isinstance(value, Markup) else escape(plain_text(value))


def plain_text(value: Any) -> str:
    """Return a value in one line; "" for None."""
    if value is None:
        return ""
    if isinstance(value, list | tuple):
        return ", ".join(map(plain_text, value))
    return str(value)


def link(address: str, words: str) -> Markup:
    """Return a link to an address of this service; anything else is only text."""
    if not address.startswith("/") or address.startswith("//"):
        return Markup(escape(words))
    return Markup(f'<a href="{escape(address)}">{escape(words)}</a>')


def state_mark(state: str) -> Markup:
    """Return a state as a coloured mark."""
    return Markup(f'<span class="state {escape(state)}">{escape(state)}</span>')


def table(
    head: Sequence[str],
    rows: Sequence[Sequence[Any]],
    *,
    numbers: Iterable[int] = (),
    whole: Iterable[int] = (),
    sums: Iterable[str] = (),
    style: str = "",
) -> str:
    """Return a table, or "none"; `numbers` and `whole` are columns to align and not to break.

    Rows whose first cell is among `sums` are set off.
    """
    if not rows:
        return "<p>none</p>"
    classes = {**dict.fromkeys(whole, " class=t"), **dict.fromkeys(numbers, " class=n")}

    def cells(tag: str, row: Sequence[Any]) -> str:
        return "".join(
            f"<{tag}{classes.get(place, '')}>{html(cell)}</{tag}>" for place, cell in enumerate(row)
        )

    body = "\n".join(
        f"<tr{' class=sum' if row[0] in sums else ''}>{cells('td', row)}</tr>" for row in rows
    )
    opened = f"<table class={style}>" if style else "<table>"
    header = f"<tr>{cells('th', head)}</tr>\n" if any(head) else ""
    return f"{opened}{header}{body}</table>"
