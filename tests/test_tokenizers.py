"""Tokenizers that are learnt from a text, and the files that a run is prepared with."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from picogpt.encoder import END_OF_TEXT, Encoder, get_encoder, merge_plainly, split_into_words
from picogpt.errors import UserError
from picogpt.training import prepare, tokenizers
from picogpt.weights import to_huggingface
from tests.fuzz import TIMES
from tests.helpers import SHAKESPEARE

TEXT = "First Citizen:\nWe are accounted poor citizens, the patricians good.\n\nAll:\nSpeak, speak! It's 1607.\n" * 20
# characters of one to four bytes that share their first bytes, and what the word pattern splits on
ALPHABET = st.sampled_from("aé è©ÀßĤĉ€₭“”‘中丁😀😁\U00010000 \n\t\r\xa0\u3000'st019.,\u0301\x00\x1c\x85")
TEXTS = st.text(ALPHABET | st.characters(exclude_categories=["Cs"]), min_size=1)


@settings(max_examples=100 * TIMES)
@given(TEXTS)
def test_each_character_is_one_token_in_the_order_of_unicode(text):
    encoder = tokenizers.learn("characters", text)
    known = sorted(set(text))
    assert encoder.encode(text) == [known.index(c) for c in text]
    assert len(encoder.encoder) == len(known)
    assert encoder.decode(encoder.encode(text)) == text


@settings(max_examples=100 * TIMES)
@given(TEXTS, ALPHABET | st.characters(exclude_categories=["Cs"]))
def test_a_character_that_is_not_known_is_refused(text, character):
    encoder = tokenizers.learn("characters", text)
    if character in text:
        return
    with pytest.raises(
        UserError, match=r"\A[^\n]*cannot be encoded with this vocabulary, which has no token"
    ) as caught:
        encoder.encode(text + character)
    assert len(str(caught.value)) < 200


@given(st.text(st.characters(exclude_categories=["Cs"])))
def test_bytes_are_their_own_ids(text):
    encoder = tokenizers.learn("bytes", "")
    assert encoder.encode(text) == list(text.encode())
    assert len(encoder.encoder) == 256


def test_the_bundled_tokenizer_is_learnt_again_byte_for_byte(tmp_path):
    pytest.importorskip("tokenizers", reason="tokenizers learns a BPE")
    text = Path(SHAKESPEARE / "../../../shared/data/tinyshakespeare.txt")
    if not text.exists():
        pytest.skip("no copy of tinyshakespeare here")
    train, _ = prepare.read_parts(text, 0.1)
    prepare.save_tokenizer(tokenizers.learn("1024", train), tmp_path)
    for name in ("encoder.json", "vocab.bpe"):
        assert (tmp_path / name).read_bytes() == (SHAKESPEARE / name).read_bytes()


def plain_merges(text: str, n: int) -> list[str]:
    """Byte pair encoding as in the paper: n times, the most frequent pair is merged. There must be no ties."""
    from collections import Counter
    from itertools import pairwise

    words = Counter(map(tokenizers.symbols, split_into_words(text)))
    merges: list[str] = []
    for _ in range(n):
        ranks = {merge: i for i, merge in enumerate(merges)}
        pairs: Counter[str] = Counter()
        for word, count in words.items():
            for pair in pairwise(merge_plainly(word, ranks)):
                pairs[" ".join(pair)] += count
        (best, most), (_, second) = pairs.most_common(2)
        assert most > second
        merges.append(best)
    return merges


def test_a_bpe_merges_the_most_frequent_pairs():
    pytest.importorskip("tokenizers", reason="tokenizers learns a BPE")
    text = "abc " * 100 + "abd " * 50 + "xyz" * 40 + " cab" * 17
    encoder = tokenizers.learn("260", text)
    assert list(encoder.bpe_ranks) == plain_merges(text, 3)
    assert encoder.end_of_text == 0 and len(encoder.encoder) == 260


@settings(max_examples=25 * TIMES, deadline=None)
@given(TEXTS, st.text(st.characters(exclude_categories=["Cs"])))
def test_a_bpe_encodes_every_text(learnt, text):
    pytest.importorskip("tokenizers", reason="tokenizers learns a BPE")
    encoder = tokenizers.learn("300", learnt)
    assert encoder.decode(encoder.encode(text)) == text
    assert sorted(encoder.decoder) == list(range(len(encoder.encoder)))
    assert {merge.replace(" ", "") for merge in encoder.bpe_ranks} < set(encoder.encoder)


def test_a_short_text_gives_a_smaller_bpe():
    pytest.importorskip("tokenizers", reason="tokenizers learns a BPE")
    assert len(tokenizers.learn("1024", "hello hello").encoder) < 300


@pytest.mark.parametrize(
    ("kind", "text", "words"),
    [
        ("100", TEXT, ["expected 257 to 1048576 tokens, found 100: try 1024"]),
        ("99999999999999999999", TEXT, ["257 to 1048576 tokens"]),
        ("letters", TEXT, ["characters, bytes, a number", "found 'letters'"]),
        ("characters", "", ["expected a text", "empty"]),
        ("characters", "a\ud800", ["lone surrogate", "remove it"]),
    ],
)
def test_mistakes_cost_one_line(kind, text, words):
    with pytest.raises(UserError) as caught:
        tokenizers.learn(kind, text)
    assert all(word in str(caught.value) for word in words), caught.value


def test_the_missing_package_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "tokenizers", None)
    with pytest.raises(UserError, match=re.escape('pip install "picogpt-numpy[train]"')):
        tokenizers.learn("1024", TEXT)


# files


@pytest.mark.parametrize("kind", ["characters", "bytes", "300"])
def test_saved_tokenizers_are_read_by_the_one_encoder(tmp_path, kind):
    if kind == "300":
        pytest.importorskip("tokenizers", reason="tokenizers learns a BPE")
    encoder = tokenizers.learn(kind, TEXT + "é“中😀")
    prepare.save_tokenizer(encoder, tmp_path)
    again = get_encoder(tmp_path.name, tmp_path.parent)
    assert again.encoder == encoder.encoder and again.bpe_ranks == encoder.bpe_ranks
    assert again.encode(TEXT + "é“中😀") == encoder.encode(TEXT + "é“中😀")


LINES = st.text(st.sampled_from("ab1.,é中\x1c\x85\xa0\u2028\u3000 \t\r\n\n\n'"), min_size=1)


@settings(max_examples=150 * TIMES)
@given(LINES, st.integers(1, 8))
def test_pieces_have_the_ids_of_the_whole(text, size):
    encoder = get_encoder(SHAKESPEARE.name, SHAKESPEARE.parent)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(prepare, "PIECE", size)
        pieces = list(prepare.pieces(text))
        assert "".join(pieces) == text
        assert [word for piece in pieces for word in split_into_words(piece)] == split_into_words(text)
        assert prepare.encoded(encoder, text).tolist() == encoder.encode(text)


def test_long_texts_are_cut():
    pieces = list(prepare.pieces("To be, or not to be\n" * 200_000))
    assert [len(piece) for piece in pieces[:-1]] == [1048580] * 3
    assert list(prepare.pieces("")) == [""]


@pytest.mark.parametrize(("largest", "dtype"), [(65535, np.uint16), (65536, np.uint32)])
def test_ids_take_two_bytes_if_they_fit(largest, dtype):
    ids = prepare.encoded(Encoder({"a": 0, "b": largest}, []), "abba")
    assert ids.dtype == dtype and ids.tolist() == [0, largest, largest, 0]


def test_the_end_of_a_text_is_held_out(tmp_path):
    path = tmp_path / "text.txt"
    path.write_text("é" * 10 + "b" * 10, encoding="utf-8")
    assert prepare.read_parts(path, 0.25) == ("é" * 10 + "b" * 5, "b" * 5)
    for part in (0, 1, -1, float("nan")):
        with pytest.raises(UserError, match="held_out must lie between 0 and 1, found"):
            prepare.read_parts(path, part)


def test_an_array_is_written_completely_or_not_at_all(tmp_path, monkeypatch):
    path = tmp_path / "train.npy"
    prepare.save_array(path, np.arange(3))

    def fail(file, array, **_):
        file.write(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(np, "save", fail)
    with pytest.raises(OSError):
        prepare.save_array(path, np.arange(4))
    assert np.load(path).tolist() == [0, 1, 2] and [p.name for p in tmp_path.iterdir()] == ["train.npy"]


def test_hparams_are_saved_as_openai_has_them(tmp_path):
    prepare.save_hparams({"n_vocab": 65, "n_ctx": 8}, tmp_path)
    assert json.loads((tmp_path / "hparams.json").read_text()) == {"n_vocab": 65, "n_ctx": 8}


def test_end_of_text_is_text_when_a_bpe_is_learnt():
    pytest.importorskip("tokenizers", reason="tokenizers learns a BPE")
    encoder = tokenizers.learn("400", f"{END_OF_TEXT} or not " * 50)
    assert encoder.end_of_text not in encoder.encode(END_OF_TEXT)
    assert encoder.decode(encoder.encode(END_OF_TEXT)) == END_OF_TEXT


def test_transformers_cannot_read_characters_of_several_bytes_and_is_not_asked_to():
    to_huggingface.check_merges(tokenizers.learn("characters", "abc"))
    to_huggingface.check_merges(tokenizers.learn("bytes", ""))
    with pytest.raises(UserError, match="an id for each part of a merge, found none for 'Ã': transformers cannot"):
        to_huggingface.check_merges(tokenizers.learn("characters", "abcé"))
