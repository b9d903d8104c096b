"""`ledger prove`: asks a running service for a proof and checks it here, without trusting it.

What is checked: the leaf's bytes are those of the event and its body as shown, the path leads from
them to the root, and the root is the one that a key we trust has signed.
"""

from __future__ import annotations

import asyncio
import os
import sys
from base64 import b64decode
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any, Final

import orjson

from ledger.client.service_client import Client, path_of, service_url
from ledger.config.settings import load
from ledger.errors import BadNote
from ledger.evidence import leaf, merkle
from ledger.evidence.keys import read_trusted, trusted_keys
from ledger.evidence.signed_note import ORIGIN, Verifier, open_checkpoint
from ledger.terminal import tables

HOLDS: Final = 0
FAILS: Final = 1
INCOMPLETE: Final = 3


@dataclass(frozen=True, slots=True)
class ProveOptions:
    """Which service is asked, and whose signatures count."""

    url: str | None
    token: str | None
    trusted: Path | None
    json: bool


def inclusion(options: ProveOptions, source: str, position: int, size: int | None) -> int:
    """Prove that an event is under a signed checkpoint; return the exit status."""
    base = path_of("v1", "events", source, str(position))
    proof, body = _ask(options, (base + "/proof", {"size": size}), (base + "/body", {}))
    document = orjson.loads(proof)
    issues, signers = check_inclusion(document, source, position, body, _keys(options))
    covered = f"event {position} of {source} is among the {document['size']} events of"
    return _show(options, document, covered, issues, signers)


def consistency(options: ProveOptions, source: str, old: int, new: int | None) -> int:
    """Prove that one checkpoint continues another; return the exit status."""
    path = path_of("v1", "seals", source, "consistency")
    (proof,) = _ask(options, (path, {"from": old, "to": new}))
    document = orjson.loads(proof)
    issues, signers = check_consistency(document, source, _keys(options))
    covered = f"the {document['to']} events of {source} begin with the {document['from']} of"
    return _show(options, document, covered, issues, signers)


def check_inclusion(
    proof: dict[str, Any], source: str, position: int, body: bytes, trusted: Sequence[Verifier]
) -> tuple[list[str], list[Verifier]]:
    """Return what is wrong with an inclusion proof ([] is nothing) and who signed its root."""
    try:
        data = b64decode(proof["leaf"], validate=True)
        root, path = _hashes(proof["root"])[0], _hashes(*proof["path"])
        size, note = int(proof["size"]), str(proof["checkpoint"])
        fields = leaf.decode(data)
    except (KeyError, TypeError, ValueError) as error:
        return [f"this is not a proof: {error}"], []
    issues = []
    if fields["source"] != source.encode() or fields["position"] != str(position).encode():
        issues.append("the leaf is of another event")
    if fields["body_sha256"] != sha256(body).digest():
        issues.append("the body is not the one that was sealed")
    hashed = merkle.leaf_hash(data)
    if not merkle.includes(hashed, position - 1, size, path, root):
        issues.append("the path does not lead from the leaf to the root")
    wrong, signers = _check_note(note, source, size, root, trusted)
    return issues + wrong, signers


def check_consistency(
    proof: dict[str, Any], source: str, trusted: Sequence[Verifier]
) -> tuple[list[str], list[Verifier]]:
    """Return what is wrong with a consistency proof ([] is nothing) and who signed both roots."""
    try:
        old, new = _hashes(proof["from_root"], proof["to_root"])
        path, sizes = _hashes(*proof["path"]), (int(proof["from"]), int(proof["to"]))
        notes = str(proof["from_checkpoint"]), str(proof["to_checkpoint"])
    except (KeyError, TypeError, ValueError) as error:
        return [f"this is not a proof: {error}"], []
    issues = []
    if not merkle.extends(*sizes, old, new, path):
        issues.append("the path does not lead from one root to the other")
    first = _check_note(notes[0], source, sizes[0], old, trusted)
    last = _check_note(notes[1], source, sizes[1], new, trusted)
    signers = last[1] if first[1] else []
    return issues + first[0] + last[0], signers


def _hashes(*texts: str) -> list[bytes]:
    return [b64decode(text, validate=True) for text in texts]


def _check_note(
    note: str, source: str, size: int, root: bytes, trusted: Sequence[Verifier]
) -> tuple[list[str], list[Verifier]]:
    try:
        checkpoint, signers = open_checkpoint(note, trusted)
    except BadNote as error:
        return [str(error)], []
    if (checkpoint.origin, checkpoint.size, checkpoint.root) != (ORIGIN + source, size, root):
        return ["the signed checkpoint is of another log, size or root"], signers
    return [], signers


def _readable(proof: dict[str, Any]) -> dict[str, Any]:
    """Show a leaf as the fields it is made of; the path is for programs (--json)."""
    shown = {k: v for k, v in proof.items() if k not in ("leaf", "path")}
    shown["path"] = f"{len(proof.get('path', ()))} hashes"
    if "leaf" not in proof:
        return shown
    with suppress(ValueError, TypeError):
        fields = leaf.decode(b64decode(proof["leaf"]))
        for name, value in fields.items():
            if value is not None and name not in shown:
                is_text = name not in ("event_id", "body_sha256")
                shown[name] = value.decode("utf-8", "replace") if is_text else value.hex()
    return shown


def _keys(options: ProveOptions) -> list[Verifier]:
    if options.trusted is not None:
        return read_trusted(options.trusted)
    return trusted_keys(load(os.environ).data_dir)


def _ask(options: ProveOptions, *requests: tuple[str, dict[str, int | None]]) -> list[bytes]:
    settings = load(os.environ)
    token = options.token or next(iter(settings.api_tokens), None)

    async def answers() -> list[bytes]:
        async with Client(service_url(settings, options.url), token) as client:
            return [
                await client.get(path, {k: str(v) for k, v in params.items() if v is not None})
                for path, params in requests
            ]

    return asyncio.run(answers())


def _show(
    options: ProveOptions, proof: dict[str, Any], covered: str, issues: list[str],
    signers: list[Verifier],
) -> int:  # fmt: skip
    outcome = "fail" if issues else "ok" if signers else "INCOMPLETE"
    if options.json:
        document = {**proof, "verdict": outcome, "troubles": issues}
        sys.stdout.write(orjson.dumps(document).decode() + "\n")
    else:
        out = tables.console()
        tables.show_one(_readable(proof), out)
        for issue in issues:
            tables.line(out, f"the proof does not hold: {issue}", "fail")
        if signers:
            tables.line(out, f"proved: {covered} a checkpoint signed by {signers[0]}", outcome)
        elif not issues:
            tables.line(out, "INCOMPLETE: the hashes fit, but no trusted key signed the root; "
                        "give the list of trusted keys with --trusted FILE", outcome)  # fmt: skip
    return {"ok": HOLDS, "fail": FAILS}.get(outcome, INCOMPLETE)
