"""Evidence over HTTP: checkpoints and proofs that a stranger can check."""

from __future__ import annotations

from base64 import b64decode
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from ledger.cli import prove
from ledger.evidence import keys, leaf, merkle
from ledger.evidence.sealer import SourceSealer
from ledger.evidence.signed_note import open_checkpoint
from tests.asking import Service, payment, serving
from tests.conftest import Database
from tests.evidence import append, as_superuser, with_key

SIZES = (3, 256, 259, 700)


@pytest.fixture
async def service(database: Database, tmp_path: Path) -> AsyncIterator[Service]:
    """A service over a log of 700 events with four checkpoints."""
    own = with_key(database, tmp_path)
    done = 0
    for size in SIZES:
        await append(own, size - done)
        await seal(own)
        done = size
    async with serving(own) as running:
        yield running


async def seal(database: Database) -> None:
    async with database.service() as connection:
        await SourceSealer("straitsx", database.settings).step(connection)


def trusted(service: Service) -> list[Any]:
    return keys.trusted_keys(service.database.settings.data_dir)


async def test_checkpoints_are_listed_the_newest_first(service: Service) -> None:
    pages = await service.pages("/v1/seals", "seals", limit=3, source="straitsx")
    assert [[row["size"] for row in page] for page in pages] == [[700, 259, 256], [3]]
    checkpoint, signers = open_checkpoint(pages[0][0]["note"], trusted(service))
    assert checkpoint.size == 700
    assert b64decode(pages[0][0]["root"]) == checkpoint.root
    assert str(signers[0]) == pages[0][0]["vkey"]


async def test_the_latest_checkpoint_is_text_to_keep_elsewhere(service: Service) -> None:
    latest = await service.ask("/v1/seals/straitsx")
    assert latest["size"] == 700
    assert (await service.ask("/v1/seals/straitsx", size=259))["size"] == 259
    async with service.client.get("/v1/seals/straitsx/note") as response:
        assert response.content_type == "text/plain"
        assert response.headers["Ledger-Seal-Key"] == latest["vkey"]
        assert await response.text() == latest["note"]


async def test_every_event_is_proved_against_every_checkpoint_that_covers_it(
    service: Service,
) -> None:
    for position in (1, 2, 3, 4, 256, 257, 512, 513, 699, 700):
        await assert_proved(service, position)


async def assert_proved(service: Service, position: int) -> None:
    async with service.client.get(f"/v1/events/straitsx/{position}/body") as response:
        body = await response.read()
    for size in SIZES:
        path = f"/v1/events/straitsx/{position}/proof"
        if position > size:
            status, problem = await service.refused(path, size=size)
            assert (status, "cannot cover" in problem["detail"]) == (400, True)
            continue
        proof = await service.ask(path, size=size)
        assert proof["index"] == position - 1
        keyring = trusted(service)
        issues, signers = prove.check_inclusion(proof, "straitsx", position, body, keyring)
        assert (issues, signers) == ([], keyring)
        assert merkle.leaf_hash(b64decode(proof["leaf"])) == b64decode(proof["leaf_hash"])
        fields = leaf.decode(b64decode(proof["leaf"]))
        assert fields["position"] == str(position).encode()


async def test_every_checkpoint_is_proved_to_continue_every_earlier_one(service: Service) -> None:
    for n, old in enumerate(SIZES):
        for new in SIZES[n:]:
            proof = await service.ask("/v1/seals/straitsx/consistency", from_=old, to=new)
            assert (proof["from"], proof["to"]) == (old, new)
            keyring = trusted(service)
            assert prove.check_consistency(proof, "straitsx", keyring) == ([], keyring)
    latest = await service.ask("/v1/seals/straitsx/consistency", from_=3)
    assert latest["to"] == 700


async def test_a_proof_tampered_with_does_not_hold(service: Service) -> None:
    async with service.client.get("/v1/events/straitsx/4/body") as response:
        body = await response.read()
    proof = await service.ask("/v1/events/straitsx/4/proof")
    other = await service.ask("/v1/events/straitsx/5/proof")
    keyring = trusted(service)
    assert prove.check_inclusion(proof, "straitsx", 5, body, keyring)[0]
    assert prove.check_inclusion(proof, "straitsx", 4, body + b" ", keyring)[0]
    assert prove.check_inclusion(proof, "gokart", 4, body, keyring)[0]
    for name in ("leaf", "root", "path", "size"):
        assert prove.check_inclusion(proof | {name: other[name]}, "straitsx", 4, body, keyring)[
            0
        ] or (proof[name] == other[name])
    assert prove.check_inclusion(proof, "straitsx", 4, body, []) == ([], [])
    note = proof["checkpoint"].replace("\n700\n", "\n701\n")
    assert prove.check_inclusion(proof | {"checkpoint": note}, "straitsx", 4, body, keyring)[0]


def test_an_answer_that_is_no_proof_proves_nothing() -> None:
    for answer in ({}, {"leaf": "?", "root": "", "path": []}, {"leaf": 1}, {"path": None}):
        assert prove.check_inclusion(answer, "straitsx", 1, b"", [])[0]
        assert prove.check_consistency(answer, "straitsx", [])[0]


async def test_what_cannot_be_proved_is_refused_with_what_to_do(service: Service) -> None:
    status, problem = await service.refused("/v1/events/straitsx/701/proof")
    assert (status, "ends at 700" in problem["detail"]) == (404, True)
    assert (await service.refused("/v1/events/straitsx/0/proof"))[0] == 404
    status, problem = await service.refused("/v1/events/straitsx/1/proof", size=4)
    assert (status, "no checkpoint of 4" in problem["detail"]) == (404, True)
    assert (await service.refused("/v1/seals/straitsx/consistency"))[0] == 400
    assert (await service.refused("/v1/seals/straitsx/consistency", from_=700, to=3))[0] == 400
    assert (await service.refused("/v1/seals/straitsx/consistency", from_=0))[0] == 404
    assert (await service.refused("/v1/seals/gokart"))[0] == 503
    assert (await service.refused("/v1/seals/nowhere"))[0] == 404
    await service.post_json("straitsx", payment(9_999_999))
    status, problem = await service.refused("/v1/events/straitsx/701/proof")
    assert (status, "not sealed yet" in problem["detail"]) == (503, True)


async def test_no_proof_is_given_of_an_event_that_was_changed(service: Service) -> None:
    await as_superuser(
        service.database,
        "UPDATE ledger.events SET status = 'failed' WHERE source = 'straitsx' AND position = 4",
    )
    status, problem = await service.refused("/v1/events/straitsx/4/proof")
    assert (status, "not the one that was sealed" in problem["detail"]) == (409, True)
    assert (await service.ask("/v1/events/straitsx/5/proof"))["position"] == 5
