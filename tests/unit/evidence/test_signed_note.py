"""Signed notes and checkpoints: the format's published example, rotation, tampering."""

from __future__ import annotations

import pytest

from ledger.errors import BadNote
from ledger.evidence import signed_note as note
from ledger.evidence.signed_note import (
    Checkpoint,
    Signer,
    Verifier,
    checkpoint_of,
    notes_in,
    open_checkpoint,
)

PUBLIC = "PeterNeumann+c74f20a3+ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW"
PRIVATE = "PRIVATE+KEY+PeterNeumann+c74f20a3+AYEKFALVFGyNhPJEMzD1QIDr+Y7hfZx09iUvxdXHKDFz"
TEXT = (
    "If you think cryptography is the answer to your problem,\n"
    "then you don't know what your problem is.\n"
)
NOTE = TEXT + (
    "\n— PeterNeumann x08go/ZJkuBS9UG/SffcvIAQxVBtiFupLLr8pAcElZInNIuGUgYN1FFYC2pZSNXg"
    "KvqfqdngotpRZb6KE6RyyBwJnAM=\n"
)
ROOT = bytes(range(32))


def test_the_published_example_is_signed_and_opened() -> None:
    assert Signer.parse(PRIVATE).sign(TEXT) == NOTE
    assert str(Signer.parse(PRIVATE).verifier) == PUBLIC
    assert note.open_note(NOTE, [Verifier.parse(PUBLIC)]) == (TEXT, [Verifier.parse(PUBLIC)])


def test_a_checkpoint_has_origin_size_and_root() -> None:
    signer = Signer.generate()
    signed = signer.sign(checkpoint_of("straitsx", 42, ROOT).text)
    lines = signed.split("\n")
    assert lines[:4] == [
        "callback-ledger/straitsx", "42", "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=", "",
    ]  # fmt: skip
    assert lines[4].startswith("— callback-ledger ")
    found, signers = open_checkpoint(signed, [signer.verifier])
    assert found == Checkpoint("callback-ledger/straitsx", 42, ROOT)
    assert found.source == "straitsx"
    assert signers == [signer.verifier]


def test_the_same_text_gives_the_same_note() -> None:
    signer = Signer.generate()
    assert signer.sign(TEXT) == signer.sign(TEXT)


def test_keys_survive_their_text_form_and_do_not_show_themselves() -> None:
    signer = Signer.generate()
    assert Signer.parse(signer.text) == signer
    assert Verifier.parse(str(signer.verifier)) == signer.verifier
    assert signer.text.split("+", 4)[-1] not in repr(signer)


def test_a_note_is_opened_by_whichever_key_signed_it() -> None:
    old, new, other = Signer.generate(), Signer.generate(), Signer.generate()
    keys = [old.verifier, new.verifier]
    assert note.open_note(old.sign(TEXT), keys)[1] == [old.verifier]
    assert note.open_note(new.sign(TEXT), keys)[1] == [new.verifier]
    assert note.open_note(other.sign(TEXT), keys)[1] == []


def test_a_note_signed_twice_names_both_signers() -> None:
    old, new = Signer.generate(), Signer.generate()
    both = old.sign(TEXT) + new.sign(TEXT).split("\n\n")[1]
    assert note.open_note(both, [new.verifier, old.verifier])[1] == [old.verifier, new.verifier]


def test_every_changed_byte_of_a_note_is_noticed() -> None:
    signer = Signer.generate()
    signed = signer.sign(checkpoint_of("straitsx", 42, ROOT).text)
    raw = signed.encode()
    for place in range(len(raw)):
        changed = bytearray(raw)
        changed[place] ^= 1
        text = bytes(changed).decode("utf-8", "replace")
        try:
            _, signers = open_checkpoint(text, [signer.verifier])
        except BadNote:
            continue
        assert signers == [], f"byte {place} may be changed"


@pytest.mark.parametrize(
    "bad",
    ["", "text\n", "text\n\n", "text\n\n— name\n", "text\n\n— name AAAA\n", "text\n\n— name ====\n",
     "te\x00xt\n\n— name AAAAAAAA\n", "text\n\n— name AAAAAAAB", "text\n\n- name AAAAAAAA\n"],
)  # fmt: skip
def test_what_is_not_a_note_is_refused(bad: str) -> None:
    with pytest.raises(BadNote):
        note.open_note(bad, [])


@pytest.mark.parametrize(
    "bad",
    ["", "origin\n", "origin\nx\nAA==\n", "origin\n-1\nAA==\n", "origin\n01\nAA==\n",
     "origin\n1\nAA==\n", "\n1\n" + "A" * 43 + "=\n", "origin\n1\n" + "A" * 42 + "B=\n"],
)  # fmt: skip
def test_what_is_not_a_checkpoint_is_refused(bad: str) -> None:
    with pytest.raises(BadNote):
        Checkpoint.parse(bad)


@pytest.mark.parametrize(
    "bad",
    ["", "name", "name+00000000+AA==", PUBLIC.replace("c74f20a3", "c74f20a4"), "a b" + PUBLIC],
)
def test_what_is_not_a_key_is_refused(bad: str) -> None:
    with pytest.raises(BadNote):
        Verifier.parse(bad)
    with pytest.raises(BadNote):
        Signer.parse(bad)
    with pytest.raises(BadNote):
        Signer.parse("PRIVATE+KEY+" + bad)


def test_notes_are_found_in_a_file_and_fragments_passed_over() -> None:
    signer = Signer.generate()
    notes = [signer.sign(checkpoint_of("gokart", n, ROOT).text) for n in (1, 2, 3, 4)]
    torn = notes[1][:-9] + " (torn)\n"
    text = notes[0] + "\n" + torn + "\n" + notes[1] + "\n" + notes[2] + "\n" + notes[3]
    assert list(notes_in(text.splitlines(keepends=True))) == notes
    assert list(notes_in(notes[0].splitlines(keepends=True))) == notes[:1]
