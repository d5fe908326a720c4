"""python -m picogpt.evaluate: what it measures, against transformers and by hand, and what it refuses."""

from __future__ import annotations

import doctest
import json
import math
import re
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import picogpt
from picogpt.commands import evaluate
from picogpt.encoder import Encoder, bytes_to_unicode
from picogpt.errors import UserError
from picogpt.insight import measures, score
from picogpt.insight.measures import Question, ratio
from tests.helpers import ENVIRONMENT, ROOT, SHAKESPEARE

TEXT = "First Citizen:\nBefore we proceed any further, hear me speak.\n\nAll:\nSpeak, speak.\n\n" * 30
PASSAGES = [
    "To be, or not to be, that is the question",
    "O Romeo, Romeo! wherefore art thou Romeo?",
    "Good morrow, my lord",
    "I am a banish'd man",
]
QUESTIONS = [
    {"prompt": "Good morrow, my", "choices": ["lord", "potato", "of the which"], "answer": 0},
    {"context": "ROMEO:\n", "choices": ["I am", "xqz", "zzzzzzzz"], "answer": "I am"},
    {"prompt": "", "choices": ["The", "zq"], "answer": 1},
]


@pytest.fixture(scope="module")
def model():
    return picogpt.load("shakespeare", SHAKESPEARE.parent)


def run(*words: str, stdin: bytes | None = None):
    source = {"stdin": subprocess.DEVNULL} if stdin is None else {"input": stdin}
    command = [sys.executable, "-m", "picogpt.evaluate", *words, "-m", str(SHAKESPEARE)]
    return subprocess.run(command, capture_output=True, cwd=ROOT, env=ENVIRONMENT, timeout=120, **source)


def answer_of(capsys, **arguments):
    """What the command writes, called in this process, as JSON."""
    evaluate.main(**arguments, json=True, model_size=str(SHAKESPEARE))
    return json.loads(capsys.readouterr().out)


@pytest.fixture
def write(tmp_path):
    def write(*records, name="file.jsonl"):
        path = tmp_path / name
        path.write_text("\n".join(map(json.dumps, records)) if name.endswith("jsonl") else records[0], "utf-8")
        return str(path)

    return write


# a text


def test_a_text_from_the_shell(write):
    path = write(TEXT, name="text.txt")
    process = run(path, "--stride", "256", "--json")
    assert process.returncode == 0 and process.stderr == b""
    found = json.loads(process.stdout)
    table = run(path, "--stride", "256").stdout.decode()
    assert f"\nloss                {found['loss']:.4f} ± {found['loss_stderr']:.4f}\n" in table
    assert run("/dev/stdin", "--stride", "256", "--json", stdin=TEXT.encode()).stdout == process.stdout


def test_losses_of_a_text_are_those_of_its_tokens(model, capsys, write):
    ids = model.encode(TEXT)
    found = answer_of(capsys, text_file=write(TEXT, name="text.txt"))
    losses = -model.score(ids)
    assert (found["tokens"], found["scored"], found["window"], found["stride"]) == (len(ids), len(losses), 256, 128)
    scored = model.decode(ids[1:])
    assert found["loss"] == pytest.approx(losses.mean())
    assert found["perplexity"] == pytest.approx(math.exp(losses.mean()))
    assert found["loss_per_character"] == pytest.approx(losses.sum() / len(scored))
    assert found["bits_per_byte"] == pytest.approx(losses.sum() / math.log(2) / len(scored.encode()))
    assert found["perplexity_stderr"] == pytest.approx(found["perplexity"] * found["loss_stderr"])


def test_only_what_is_scored_is_counted_per_byte(model, capsys, write):
    found = answer_of(capsys, text_file=write(TEXT, name="text.txt"), stride=256, batch_size=2)
    ids = model.encode(TEXT)
    scored = [ids[start + 1 : start + 256] for start in range(0, len(ids), 256)]
    n_bytes = sum(len(model.decode(part)) for part in scored)
    assert found["scored"] == sum(map(len, scored)) == len(ids) - found["windows"]
    assert found["bits_per_byte"] == pytest.approx(found["loss"] * found["scored"] / math.log(2) / n_bytes)


def test_characters_and_bytes_differ_where_a_character_has_several(model, capsys, write):
    text = "Ä b € naïve 😀 " * 5
    found = answer_of(capsys, text_file=write(text, name="text.txt"))
    ids = model.encode(text)
    n_bytes, n_characters = measures.lengths_of(np.array(ids), model.encoder).sum(axis=1)
    assert (n_bytes, n_characters) == (len(text.encode()), len(text))
    assert found["bits_per_byte"] < found["bits_per_character"]


def test_the_figure_of_transformers(model, capsys, write):
    torch = pytest.importorskip("torch", reason="torch is not installed: transformers runs on it")
    pytest.importorskip("transformers", reason="transformers is not installed: it is the oracle")
    from parity.pytorch import transformers_model
    from picogpt.weights import store

    torch.set_num_threads(1)
    theirs = transformers_model(model.hparams, store.open_tensors(SHAKESPEARE, model.hparams).items())
    ids = torch.tensor([model.encode(TEXT)])
    total = 0.0
    for start in range(0, ids.shape[1], 256):
        window = ids[:, start : start + 256]
        with torch.no_grad():
            total += theirs(window, labels=window).loss.item() * (window.shape[1] - 1)
    found = answer_of(capsys, text_file=write(TEXT, name="text.txt"), stride=256)
    assert found["loss"] == pytest.approx(total / found["scored"], rel=1e-5)


def test_the_standard_error_grows_when_neighbours_are_alike(model):
    rng, cuts, ids = np.random.default_rng(0), list(score.windows(6400, 64, 64)), np.full(6400, 305)
    scored = 6400 - 100
    independent = measures.of_text(rng.standard_normal(scored), cuts, ids, model.encoder, 64)["loss"].stderr
    alike = measures.of_text(np.repeat(rng.standard_normal(100), 63), cuts, ids, model.encoder, 64)["loss"].stderr
    assert independent == pytest.approx(1 / math.sqrt(scored), rel=0.3)
    assert alike == pytest.approx(1 / math.sqrt(100), rel=0.3)


def test_one_block_has_no_standard_error(capsys, write):
    path = write("To be, or not to be", name="text.txt")
    assert answer_of(capsys, text_file=path)["loss_stderr"] is None
    assert "±" not in run(path).stdout.decode()


@given(st.lists(st.floats(-100, 100), min_size=2, max_size=20))
@settings(max_examples=50)
def test_a_ratio_of_single_numbers_is_a_mean(numbers):
    found = ratio(numbers, [1] * len(numbers))
    assert found.value == pytest.approx(np.mean(numbers), abs=1e-9)
    assert found.stderr == pytest.approx(np.std(numbers, ddof=1) / math.sqrt(len(numbers)), abs=1e-9)


def test_a_ratio_of_unequal_groups():
    found = ratio([2, 6], [1, 2])  # 2 and 6 are 2/3 less and 2/3 more than 8/3 and 16/3
    assert found == pytest.approx((8 / 3, math.sqrt(2 * (4 / 9 + 4 / 9)) / 3))


PARTS = st.sampled_from([*"aé \n\t\x1c\u3000\u0085\u200b7'.s😀", "\n\n", "\n\n\n", "   "])


@given(st.lists(PARTS, max_size=40).map("".join), st.integers(1, 9))
def test_a_text_in_blocks_has_the_ids_of_the_whole_text(tmp_path_factory, text, block):
    symbols = [*bytes_to_unicode().values(), "ĊĊ", "ĠĠ"]  # newlines and spaces, in the symbols of vocab.bpe
    encoder = Encoder({symbol: token_id for token_id, symbol in enumerate(symbols)}, ["Ċ Ċ", "Ġ Ġ"])
    path = tmp_path_factory.getbasetemp() / "text.txt"
    path.write_bytes(text.encode())
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(evaluate, "BLOCK", block)
        assert evaluate.read_ids(path, encoder).tolist() == encoder.encode(text)


def test_bytes_that_are_not_text_are_encoded_as_they_are(model, tmp_path):
    data = b"\xef\xbb\xbfa\xff\xc3 b\r\n\xc3\xa4\xe2\x82"
    (tmp_path / "text").write_bytes(data)
    ids = evaluate.read_ids(tmp_path / "text", model.encoder)
    assert model.encoder.decode_bytes(ids.tolist()) == data[3:]


# the last word


def test_last_words(model, capsys, write):
    found = answer_of(capsys, lambada=write(*({"text": text} for text in PASSAGES)))
    losses, hits = [], 0
    for text in PASSAGES:
        context, _, word = text.rpartition(" ")
        n_new = len(model.encode(text)) - len(model.encode(context))
        losses.append(-model.score(text)[-n_new:].sum())
        said = model.generate(context, n_new)
        hits += said == " " + word
    assert 0 < hits < 4
    assert found["accuracy"] == hits / 4 and found["passages"] == 4
    assert found["accuracy_stderr"] == pytest.approx(math.sqrt(hits / 4 * (1 - hits / 4) / 3))
    assert found["perplexity"] == pytest.approx(math.exp(np.mean(losses)), rel=1e-4)


def test_a_passage_that_is_too_long_loses_its_beginning(model, capsys, write):
    long = "so " * 600 + "good morrow my lord"
    kept = answer_of(capsys, lambada=write({"text": long}))
    ids = model.encode(long)[-257:]
    assert kept["perplexity"] == pytest.approx(math.exp(-score_last(model, ids)), rel=1e-4)


def score_last(model, ids):
    [(_, scores)] = score.score_pieces([score.Piece(ids, 1)], model.params, 6)
    return scores.log_probabilities[0]


def test_white_space_at_the_end_belongs_to_the_word(model):
    piece = measures.piece_of("To be,  ", "or", model.encoder, 256)
    assert model.decode(piece.ids[-piece.n_new :]) == "  or"
    assert measures.piece_of("", "or", model.encoder, 256).ids[0] == model.encoder.end_of_text
    assert measures.piece_of(" ", "or", model.encoder, 256).n_new == len(model.encode(" or"))


def test_a_continuation_keeps_a_token_of_its_own(model):
    piece = measures.piece_of("Th", "e", model.encoder, 256)
    assert model.encode("The") == [model.encoder.encoder["The"]]
    assert model.decode(piece.ids[-piece.n_new :]) == "e"


# choices


def test_choices(model, capsys, write):
    found = answer_of(capsys, choices=write(*QUESTIONS))

    def log_likelihood(before, text):
        ids = model.encode(before) + model.encode(text)
        return model.score(ids)[-len(model.encode(text)) :].sum()

    first = [log_likelihood("Good morrow, my", " " + choice) for choice in QUESTIONS[0]["choices"]]
    second = [log_likelihood("ROMEO:", "\n" + choice) for choice in QUESTIONS[1]["choices"]]
    third = [model.score([0, *model.encode(choice)]).sum() for choice in QUESTIONS[2]["choices"]]
    rights = [0, 0, 1]
    likeliest = [int(np.argmax(at)) for at in (first, second, third)]
    per_character = [
        int(np.argmax([one / len(choice) for one, choice in zip(at, question["choices"], strict=True)]))
        for at, question in zip((first, second, third), QUESTIONS, strict=True)
    ]
    assert likeliest != rights and found["questions"] == 3
    assert found["accuracy"] == pytest.approx(np.mean([a == b for a, b in zip(likeliest, rights, strict=True)]))
    assert found["accuracy_normalized"] == pytest.approx(
        np.mean([a == b for a, b in zip(per_character, rights, strict=True)])
    )


def scores(*log_probabilities):
    return [score.Scores(np.array([at]), np.array([False])) for at in log_probabilities]


def test_the_normalized_accuracy_divides_by_characters():
    questions = [Question("", ["a", "long choice"], 1), Question("", ["b", "c"], 1)]
    found = measures.of_choices(questions, [scores(-2, -3), scores(-1, -2)])
    assert found["accuracy"].value == 0 and found["accuracy_normalized"].value == 0.5


# docs/evaluating.md


def test_the_examples_of_the_page_print_what_it_says(monkeypatch):
    monkeypatch.chdir(ROOT)
    page = (ROOT / "docs" / "evaluating.md").read_text("utf-8")
    snippets = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    test = doctest.DocTestParser().get_doctest("\n".join(snippets), {}, "page", "docs/evaluating.md", 0)
    assert len(test.examples) >= 5 and doctest.DocTestRunner().run(test).failed == 0


def test_the_tables_of_the_page_are_what_the_command_prints(tmp_path, capsys):
    page = (ROOT / "docs" / "evaluating.md").read_text("utf-8")
    for flag in ("lambada", "choices"):
        pattern = rf"cat (\w+.jsonl)\n((?:{{.*\n)+)\$ python -m picogpt.evaluate --{flag} .*\n((?:\w.*\n)+)```"
        name, records, table = re.search(pattern, page).groups()
        (tmp_path / name).write_text(records)
        evaluate.main(**{flag: str(tmp_path / name)}, model_size=str(SHAKESPEARE))
        (words, numbers), (shown, expected) = map(parts, (capsys.readouterr().out, table))
        assert words == shown and numbers == pytest.approx(expected, rel=1e-4)


def parts(table):
    """What is not a number, and the numbers, whose last digits depend on how BLAS adds."""
    return re.sub(r"[\d.]+", "N", table), [float(number) for number in re.findall(r"[\d.]+", table)]


# mistakes


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], b"expected a text file, --lambada FILE or --choices FILE, found 0 of them"),
        (["text.txt", "--lambada", "x.jsonl"], b"found 2 of them"),
        (["none.txt"], b"none.txt: cannot read it: No such file"),
        (["tests"], b"tests: cannot read it: Is a directory"),
        (["README.md", "--stride", "257"], b"stride must be a whole number from 1 to 256, found 257"),
        (["README.md", "--stride", "0"], b"found 0"),
        (["README.md", "--batch_size", "0"], b"batch_size must be 1 or more"),
        (["--lambada", "x.jsonl", "--stride", "3"], b"expected a text file with --stride"),
        (["/dev/null"], b"expected a text of two tokens or more, found 0"),
        (["--choices", "/dev/null"], b"expected a JSON object in each line, found an empty file"),
    ],
)
def test_a_mistake_is_one_line(words, message):
    process = run(*words)
    assert process.returncode == 2 and process.stdout == b""
    assert message in process.stderr and process.stderr.count(b"\n") == 1


BAD_LINES = [
    ("lambada", {"text": "one"}, "line 1: expected a text of two words or more, found 'one'"),
    ("lambada", {"text": " one "}, "two words"),
    ("lambada", {"prompt": "a b"}, 'expected a text as "text", found'),
    ("lambada", {"text": "a " + "b" * 5000}, "expected at most 256 tokens to score"),
    ("lambada", {"text": "a \ud800"}, "line 1: "),
    ("choices", {"prompt": "a", "choices": [], "answer": 0}, 'expected a list of texts as "choices"'),
    ("choices", {"prompt": "a", "choices": ["b", ""], "answer": 0}, "list of texts"),
    ("choices", {"prompt": "a", "choices": ["b"], "answer": 1}, "from 0 to 0, as"),
    ("choices", {"prompt": "a", "choices": ["b", "c"], "answer": True}, "from 0 to 1, as"),
    ("choices", {"prompt": "a", "choices": ["b", "c"], "answer": "d"}, "one of the choices"),
    ("choices", {"prompt": "a", "choices": ["b", "c"]}, "found None"),
    ("choices", {"choices": ["b", "c"], "answer": 0}, 'expected a text as "prompt" or "context"'),
    ("choices", ["a"], "expected a JSON object"),
]


@pytest.mark.parametrize(("flag", "record", "message"), BAD_LINES)
def test_a_line_with_a_mistake_is_named(write, flag, record, message):
    with pytest.raises(UserError) as caught:
        evaluate.main(**{flag: write(record)}, model_size=str(SHAKESPEARE))
    assert message in str(caught.value) and "file.jsonl, line 1: " in str(caught.value)


@given(st.dictionaries(st.sampled_from(["prompt", "context", "choices", "answer", "text"]), st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=3), lambda s: st.lists(s, max_size=3),
    max_leaves=4,
)))  # fmt: skip
@settings(max_examples=50)
def test_any_record_is_a_question_or_an_error(record):
    try:
        question = evaluate.question_in(record)
    except UserError:
        return
    assert question.choices[question.answer] and isinstance(question.prompt, str)
