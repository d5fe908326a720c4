"""A training step: data, gradients on all cores, the limit of their norm, AdamW, the schedule, and running averages."""

import math

import numpy as np
import pytest
from threadpoolctl import threadpool_info, threadpool_limits

import picogpt
from picogpt.errors import UserError
from picogpt.training import optimizer, parallel
from picogpt.training.data import Examples, Windows
from picogpt.training.model import loss_and_grads, losses
from picogpt.training.optimizer import AdamW, learning_rate, norm
from picogpt.training.parallel import Team, blas_threads
from picogpt.training.parameters import Vector, flat, initial
from picogpt.training.settings import Settings
from picogpt.training.trainer import Trainer, mean_loss, train
from picogpt.weights.shapes import param_shapes, random_tensors

TINY = {"n_vocab": 13, "n_ctx": 8, "n_embd": 12, "n_head": 3, "n_layer": 2}
N_HEAD = TINY["n_head"]
TOKENS = np.random.default_rng(0).integers(0, 13, 200).astype(np.uint16)


def tiny_vector(seed=0, std=0.3):
    vector = Vector(TINY)
    vector.fill(random_tensors(TINY, seed, std=std))
    return vector


def tiny_batch(n_rows=7, n_seq=8):
    ids = np.random.default_rng(1).integers(0, TINY["n_vocab"], (n_rows, n_seq + 1))
    targets = ids[:, 1:].copy()
    targets[:, 3] = -1
    return ids[:, :-1], targets


def as_vector(params):
    vector = Vector(TINY)
    vector.fill(flat(params))
    return vector.values


# the vector of weights


def test_vector_holds_every_tensor_once_with_matrices_first():
    vector = tiny_vector()
    shapes = param_shapes(TINY)
    assert {name: tensor.shape for name, tensor in vector.tensors.items()} == shapes
    assert len(vector.values) == sum(math.prod(shape) for shape in shapes.values())
    vector.values[:] = np.arange(len(vector.values))
    numbers = np.concatenate([tensor.ravel() for _, tensor in flat(vector.params)])
    assert sorted(numbers.tolist()) == list(range(len(vector.values)))
    for name, tensor in vector.tensors.items():
        assert (tensor.max() < vector.n_matrices) == (len(shapes[name]) > 1)


def test_first_weights_have_the_deviations_of_gpt_2():
    hparams = {"n_vocab": 300, "n_ctx": 200, "n_embd": 64, "n_head": 2, "n_layer": 8}
    tensors = dict(initial(hparams, seed=3))
    assert {name: tensor.shape for name, tensor in tensors.items()} == param_shapes(hparams)
    for name, tensor in tensors.items():
        assert tensor.dtype == np.float32
        if tensor.ndim == 1:
            assert (tensor == name.endswith("/g")).all()
            continue
        expected = 0.01 if name == "wpe" else 0.02 / 4 if "c_proj" in name else 0.02
        assert abs(tensor.std() / expected - 1) < 0.05 and abs(tensor.mean()) < expected / 10
    assert (dict(initial(hparams, seed=3))["wte"] == tensors["wte"]).all()
    assert (dict(initial(hparams, seed=4))["wte"] != tensors["wte"]).any()


# the optimizer


def test_adamw_is_the_textbook_formula_and_pytorch(monkeypatch):
    monkeypatch.setattr(optimizer, "BLOCK", 5)
    rng = np.random.default_rng(0)
    weights, gradients = rng.standard_normal(20).astype(np.float32), rng.standard_normal((6, 20)).astype(np.float32)
    gradients *= np.float32([1, 1, 1e-9, 1, 1, 1])[:, None]  # one for which eps counts
    settings = Settings(
        steps=6, learning_rate=0.05, warmup_steps=2, weight_decay=0.3, beta_1=0.8, beta_2=0.95, eps=1e-3
    )
    ours, state = weights.copy(), AdamW(20, n_matrices=12)
    for step, gradient in enumerate(gradients):
        for part in (slice(0, 7), slice(7, 20)):
            state.update(ours, 2 * gradient, 0.5, step, settings, part)

    w, m, v = weights.astype(np.float64), np.zeros(20), np.zeros(20)
    decay = np.where(np.arange(20) < 12, 0.3, 0)
    for step, g in enumerate(gradients.astype(np.float64)):
        m, v = 0.8 * m + 0.2 * g, 0.95 * v + 0.05 * g * g
        m_hat, v_hat, rate = m / (1 - 0.8 ** (step + 1)), v / (1 - 0.95 ** (step + 1)), learning_rate(step, settings)
        w = w - rate * decay * w - rate * m_hat / (np.sqrt(v_hat) + 1e-3)
    np.testing.assert_allclose(ours, w, rtol=1e-5, atol=1e-6)

    torch = pytest.importorskip("torch", reason="torch is not installed: its AdamW is the oracle")
    theirs = [torch.nn.Parameter(torch.tensor(part)) for part in np.split(weights, [12])]
    groups = [{"params": theirs[:1], "weight_decay": 0.3}, {"params": theirs[1:], "weight_decay": 0.0}]
    adamw = torch.optim.AdamW(groups, lr=1, betas=(0.8, 0.95), eps=1e-3)
    for step, gradient in enumerate(gradients):
        for group, part in zip(adamw.param_groups, np.split(gradient, [12]), strict=True):
            group["params"][0].grad, group["lr"] = torch.tensor(part), learning_rate(step, settings)
        adamw.step()
    np.testing.assert_allclose(ours, torch.cat(theirs).detach().numpy(), rtol=1e-5, atol=1e-6)


def test_norm_is_that_of_the_whole_vector(monkeypatch):
    monkeypatch.setattr(optimizer, "BLOCK", 7)
    for n in (1, 7, 20, 21):
        values = np.random.default_rng(n).standard_normal(n).astype(np.float32)
        np.testing.assert_allclose(norm(values), np.linalg.norm(values.astype(np.float64)), rtol=1e-6)


def test_rate_rises_to_its_peak_and_falls_along_half_a_cosine():
    settings = Settings(learning_rate=0.4, min_learning_rate=0.1, warmup_steps=4, steps=24)
    rates = [learning_rate(step, settings) for step in range(30)]
    np.testing.assert_allclose(rates[:5], [0.1, 0.2, 0.3, 0.4, 0.4])
    np.testing.assert_allclose(rates[4:25], 0.25 + 0.15 * np.cos(np.linspace(0, np.pi, 21)))
    np.testing.assert_allclose(rates[24:], 0.1)


def test_schedules_at_their_borders():
    only_warmup = Settings(learning_rate=0.4, warmup_steps=10, steps=10)
    np.testing.assert_allclose([learning_rate(step, only_warmup) for step in (0, 9)], [0.04, 0.4])
    constant = Settings(learning_rate=0.4, min_learning_rate=0.4, warmup_steps=0, steps=10)
    np.testing.assert_allclose([learning_rate(step, constant) for step in range(12)], 0.4)


# data


def test_windows_begin_anywhere_and_targets_follow():
    text = Windows(np.arange(20, dtype=np.uint16), n_seq=6)
    inputs, targets = text.draw(np.random.default_rng(0), 500)
    assert inputs.shape == targets.shape == (500, 6)
    assert (targets == inputs + 1).all() and (np.diff(inputs, axis=1) == 1).all()
    assert set(inputs[:, 0]) == set(range(14)) and targets.max() == 19


@pytest.mark.parametrize("n", [7, 12, 13, 14, 1000])
def test_in_order_every_token_but_the_first_is_a_target_once(n):
    tokens = np.random.default_rng(0).integers(0, 50, n)
    seen, before = [], []
    for inputs, targets in Windows(tokens, n_seq=6).in_order():
        assert inputs.shape == targets.shape and 1 <= len(inputs) <= 64
        seen += targets[targets >= 0].tolist()
        before += inputs[targets >= 0].tolist()
    assert seen == tokens[1:].tolist() and before == tokens[:-1].tolist()


def test_windows_of_a_memory_mapped_file(tmp_path):
    np.save(tmp_path / "tokens.npy", TOKENS)
    mapped = np.load(tmp_path / "tokens.npy", mmap_mode="r")
    for ours, theirs in zip(Windows(mapped, 8).in_order(), Windows(TOKENS, 8).in_order(), strict=True):
        np.testing.assert_array_equal(ours, theirs)
    inputs, _ = Windows(mapped, 8).draw(np.random.default_rng(0), 2)
    assert inputs.dtype == np.int64


@pytest.mark.parametrize(
    ("tokens", "words"),
    [
        ([1, 2, 3, 4], "longer than a window of 4 tokens, found 4"),
        ([], "found"),
        ([[1, 2], [3, 4]], "found an array int64 (2, 2)"),
        ([1.0] * 10, "float64"),
        ("a text" * 10, "found an array"),
    ],
)
def test_texts_that_make_no_windows(tokens, words):
    with pytest.raises(UserError) as caught:
        Windows(np.asarray(tokens), n_seq=4)
    assert words in str(caught.value)


def test_examples_come_with_their_targets():
    inputs = np.arange(400).reshape(100, 4)
    data = Examples(inputs, inputs + 1000)
    drawn, targets = data.draw(np.random.default_rng(0), 1000)
    assert (targets == drawn + 1000).all() and set(drawn[:, 0]) == set(inputs[:, 0])
    parts = list(data.in_order())
    assert (np.concatenate([part for part, _ in parts]) == inputs).all()
    assert (np.concatenate([part for _, part in parts]) == inputs + 1000).all()
    for wrong in (inputs[:50], inputs[:, :3], inputs[0]):
        with pytest.raises(UserError, match="expected inputs and targets"):
            Examples(inputs, wrong)
    with pytest.raises(UserError, match="expected inputs and targets"):
        Examples(inputs[:0], inputs[:0])


# gradients on all cores


def mean_gradient(n_threads, batch, monkeypatch, positions=16, **dropout):
    monkeypatch.setattr(parallel, "POSITIONS", positions)
    inputs, targets = batch
    with Team(TINY, n_threads) as team:
        total, values = team.gradients(tiny_vector().params, inputs, targets, **dropout)
        n = (targets >= 0).sum()
        return total / n, values / n


@pytest.mark.parametrize("n_threads", [1, 2, 3, 10])
@pytest.mark.parametrize("n_rows", [1, 2, 7])
@pytest.mark.parametrize("positions", [1, 16, 1000])
def test_team_computes_the_gradient_of_the_whole_batch(n_threads, n_rows, positions, monkeypatch):
    batch = tiny_batch(n_rows)
    expected, grads = loss_and_grads(tiny_vector().params, *batch, N_HEAD)
    loss, values = mean_gradient(n_threads, batch, monkeypatch, positions)
    np.testing.assert_allclose(loss, expected, rtol=1e-5)
    np.testing.assert_allclose(values, as_vector(grads), rtol=1e-3, atol=1e-5)


def test_team_forgets_the_gradient_of_the_call_before():
    params = tiny_vector().params
    with Team(TINY, 2) as team:
        team.gradients(params, *tiny_batch(16))
        _, second = team.gradients(params, *tiny_batch(1))
        second = second.copy()
    with Team(TINY, 2) as team:
        np.testing.assert_array_equal(team.gradients(params, *tiny_batch(1))[1], second)


def test_same_number_of_threads_gives_the_same_bits(monkeypatch):
    batch = tiny_batch(11)
    for dropout in ({}, {"dropout": 0.3, "seeds": (5, 6)}):
        first = mean_gradient(3, batch, monkeypatch, **dropout)
        second = mean_gradient(3, batch, monkeypatch, **dropout)
        assert first[0] == second[0] and (first[1] == second[1]).all()


def test_dropout_is_drawn_again_for_each_seed_and_each_part(monkeypatch):
    batch = tiny_batch(6)
    plain = mean_gradient(2, batch, monkeypatch)[0]
    found = [mean_gradient(2, batch, monkeypatch, dropout=0.3, seeds=seeds)[0] for seeds in [(0, 0), (0, 1), (1, 0)]]
    assert len({plain, *found}) == 4
    several = mean_gradient(3, batch, monkeypatch, dropout=0.3, seeds=(0, 0))[0]
    np.testing.assert_allclose(several, found[0], rtol=1e-6)  # whatever the number of threads is
    same_rows = tuple(np.repeat(ids[:1], 2, axis=0) for ids in batch)
    with Team(TINY, 1) as team:
        monkeypatch.setattr(parallel, "POSITIONS", 8)
        parts = []
        real = parallel.add_grads
        monkeypatch.setattr(parallel, "add_grads", lambda *a: parts.append(real(*a)) or parts[-1])
        team.gradients(tiny_vector().params, *same_rows, dropout=0.3, seeds=(0, 0))
    assert len(parts) == 2 and (parts[0] != parts[1]).any()


def blas():
    """The threads of the library that NumPy brings; other packages may have loaded more."""
    found = [info for info in threadpool_info() if info["user_api"] == "blas"]
    return [info["num_threads"] for info in found if "numpy" in info["filepath"] or len(found) == 1]


def test_blas_gets_its_threads_back(monkeypatch):
    with threadpool_limits(2, user_api="blas"):
        before = blas()
        seen = []
        real = parallel.add_grads
        monkeypatch.setattr(parallel, "add_grads", lambda *a: seen.append(blas()) or real(*a))
        with Team(TINY, 2) as team:
            monkeypatch.setattr(parallel, "POSITIONS", 8)
            team.gradients(tiny_vector().params, *tiny_batch(4))
            assert blas() == before and all(n == 1 for found in seen for n in found)
            seen.clear()
            team.gradients(tiny_vector().params, *tiny_batch(1))  # one part alone has all cores
            assert blas() == before and any(n == 2 for found in seen for n in found)
            monkeypatch.setattr(parallel, "add_grads", lambda *a: 1 / 0)
            with pytest.raises(ZeroDivisionError):
                team.gradients(tiny_vector().params, *tiny_batch(4))
        assert blas() == before
    with blas_threads(1):
        assert set(blas()) == {1}


def test_losses_of_a_team_are_those_of_one_pass(monkeypatch):
    monkeypatch.setattr(parallel, "POSITIONS", 16)
    inputs, targets = tiny_batch(7)
    params = tiny_vector().params
    with Team(TINY, 3) as team:
        found = team.losses(params, inputs, targets)
        np.testing.assert_allclose(found, losses(params, inputs, targets, N_HEAD), rtol=1e-5, atol=1e-6)
        assert team.losses(params, inputs[:0], targets[:0]).shape == (0, 8)


def test_mean_loss_is_that_of_every_token():
    params = tiny_vector().params
    text = Windows(TOKENS[:100], 8)
    with Team(TINY, 2) as team:
        found = mean_loss(team, params, text)
    total, n = 0.0, 0
    for inputs, targets in text.in_order():
        total += losses(params, inputs, targets, N_HEAD).sum()
        n += (targets >= 0).sum()
    assert n == 99
    np.testing.assert_allclose(found, total / n, rtol=1e-6)


# steps


@pytest.mark.parametrize("clip", [0.0, 0.3, 100.0], ids=["no limit", "a low limit", "a high limit"])
def test_steps_are_those_of_pytorch(clip):
    """The gradient is ours: test_gradients.py compares it. The limit of its norm and the update are PyTorch's."""
    torch = pytest.importorskip("torch", reason="torch is not installed: its AdamW is the oracle")
    settings = Settings(steps=5, batch_size=4, learning_rate=0.01, warmup_steps=2, clip=clip, eps=1e-4, seed=3)
    data = Windows(TOKENS, 8)
    with Trainer(TINY, settings, n_threads=2) as trainer:
        mine = Vector(TINY)
        mine.values[:] = trainer.weights.values
        theirs = {name: torch.from_numpy(tensor) for name, tensor in mine.tensors.items()}  # views
        matrices = [tensor for tensor in theirs.values() if tensor.dim() > 1]
        vectors = [tensor for tensor in theirs.values() if tensor.dim() == 1]
        groups = [{"params": matrices, "weight_decay": settings.weight_decay}, {"params": vectors, "weight_decay": 0.0}]
        adamw = torch.optim.AdamW(groups, betas=(settings.beta_1, settings.beta_2), eps=settings.eps)
        for step in range(settings.steps):
            inputs, targets = data.draw(np.random.default_rng([settings.seed, step]), 4)
            loss, grads = loss_and_grads(mine.params, inputs, targets, N_HEAD)
            for name, grad in flat(grads):
                theirs[name].grad = torch.from_numpy(grad)
            length = torch.nn.utils.clip_grad_norm_(theirs.values(), clip or math.inf).item()
            for group in adamw.param_groups:
                group["lr"] = learning_rate(step, settings)
            adamw.step()
            done = trainer.train(data)
            np.testing.assert_allclose([done.loss, done.norm], [loss, length], rtol=1e-4)
            assert (done.learning_rate, done.n_tokens) == (learning_rate(step, settings), 32)
            np.testing.assert_allclose(trainer.weights.values, mine.values, rtol=1e-3, atol=2e-5)
        assert trainer.step == 5


@pytest.mark.parametrize("clip", [0.0, 0.3, 100.0], ids=["no limit", "a low limit", "a high limit"])
def test_a_step_follows_the_gradient_up_to_the_limit_of_its_norm(clip):
    """Without memory of earlier steps and with eps = 1, AdamW changes w by -rate g / (|g| + 1)."""
    forgetful = {"beta_1": 0.0, "beta_2": 0.0, "eps": 1.0, "weight_decay": 0.0, "warmup_steps": 0}
    settings = Settings(batch_size=4, learning_rate=0.5, clip=clip, **forgetful)
    with Trainer(TINY, settings, n_threads=2) as trainer:
        before = trainer.weights.values.copy()
        data = Examples(*tiny_batch(9))
        drawn = data.draw(np.random.default_rng([settings.seed, 0]), 4)
        loss, grads = loss_and_grads(trainer.weights.params, *drawn, N_HEAD)
        g = as_vector(grads).astype(np.float64)
        done = trainer.train(data)
        length = np.linalg.norm(g)
        assert clip == 0 or (length > clip) == (clip < 1)
        np.testing.assert_allclose([done.loss, done.norm], [loss, length], rtol=1e-5)
        g *= min(1, clip / length) if clip else 1
        np.testing.assert_allclose(trainer.weights.values - before, -0.5 * g / (abs(g) + 1), rtol=1e-3, atol=1e-6)


def test_batches_grow():
    settings = Settings(steps=8, batch_size=9, first_batch_size=1, growth_steps=4)
    with Trainer(TINY, settings, n_threads=2) as trainer:
        assert [trainer.train(Windows(TOKENS, 8)).n_tokens // 8 for _ in range(6)] == [1, 3, 5, 7, 9, 9]


def test_average_follows_the_weights_and_is_what_is_evaluated():
    settings = Settings(steps=30, batch_size=2, learning_rate=0.05, warmup_steps=0, average=0.5)
    data = Windows(TOKENS, 8)
    with Trainer(TINY, settings, n_threads=2) as trainer:
        expected = trainer.weights.values.astype(np.float64)
        np.testing.assert_array_equal(trainer.averaged.values, trainer.weights.values)
        for step in range(12):
            trainer.train(data)
            keep = min(0.5, (1 + step) / (10 + step))
            expected = keep * expected + (1 - keep) * trainer.weights.values
        np.testing.assert_allclose(trainer.averaged.values, expected, rtol=1e-4, atol=1e-6)
        found = mean_loss(trainer.team, trainer.averaged.params, data)
        assert trainer.loss(data) == found != mean_loss(trainer.team, trainer.weights.params, data)
    with Trainer(TINY, Settings(), n_threads=1) as trainer:
        assert trainer.averaged is trainer.weights
        assert trainer.state().keys() == {"weights", "mean", "square"}


def test_dropout_is_drawn_for_each_step_and_leaves_evaluation_alone():
    data = Examples(*tiny_batch(4))
    settings = Settings(batch_size=4, learning_rate=0.0, min_learning_rate=0.0, dropout=0.5, weight_decay=0.0)
    with Trainer(TINY, settings, n_threads=2) as trainer:
        before = trainer.weights.values.copy()
        assert len({trainer.train(data).loss for _ in range(4)}) == 4
        assert (trainer.weights.values == before).all()
        assert trainer.loss(data) == trainer.loss(data)


def test_same_seed_gives_the_same_weights():
    def weights(**settings):
        with Trainer(TINY, Settings(steps=4, batch_size=5, dropout=0.2, **settings), n_threads=2) as trainer:
            for _ in range(4):
                trainer.train(Windows(TOKENS, 8))
            return trainer.weights.values

    assert (weights(seed=1) == weights(seed=1)).all()
    assert (weights(seed=1) != weights(seed=2)).any()


@pytest.mark.parametrize("wrong", [np.nan, np.inf, 1e30], ids=str)
def test_a_loss_that_is_not_finite_stops_and_changes_nothing(wrong):
    settings = Settings(steps=9, batch_size=2, average=0.9)
    with Trainer(TINY, settings, n_threads=2) as trainer:
        for _ in range(3):
            trainer.train(Windows(TOKENS, 8))
        trainer.weights.tensors["h0/mlp/c_fc/w"][0, 0] = wrong
        trainer.weights.tensors["h1/mlp/c_fc/w"][0, 0] = wrong
        before = {name: values.copy() for name, values in trainer.state().items()}
        with pytest.raises(UserError) as caught:
            trainer.train(Windows(TOKENS, 8))
        assert str(caught.value).startswith("step 3: expected a finite loss, found ")
        assert "learning_rate" in str(caught.value) and trainer.step == 3
        for name, values in trainer.state().items():
            np.testing.assert_array_equal(values, before[name])


def test_a_loss_on_held_out_text_that_is_not_finite_is_an_error():
    with Trainer(TINY, Settings(), n_threads=2) as trainer:
        trainer.weights.tensors["ln_f/g"][0] = np.nan
        with pytest.raises(UserError, match="step 0: expected a finite loss on held-out text, found nan"):
            trainer.loss(Windows(TOKENS, 8))


def test_state_goes_back_to_a_trainer_of_the_same_model_alone():
    settings = Settings(steps=9, batch_size=2, average=0.9)
    with Trainer(TINY, settings, n_threads=1) as trainer, Trainer(TINY, settings, n_threads=1) as other:
        trainer.train(Windows(TOKENS, 8))
        saved = {name: values.copy() for name, values in trainer.state().items()}
        assert set(saved) == {"weights", "mean", "square", "averaged"}
        other.restore(saved, 1)
        assert other.step == 1
        trainer.train(Windows(TOKENS, 8))
        other.train(Windows(TOKENS, 8))
        for name, values in trainer.state().items():
            np.testing.assert_array_equal(values, other.state()[name])
        for wrong in (
            saved | {"mean": saved["mean"][1:]},
            {"weights": saved["weights"]},
            saved | {"more": saved["mean"]},
        ):
            with pytest.raises(UserError, match="another model"):
                other.restore(wrong, 1)


# from Python


def test_train_returns_better_weights_and_leaves_the_old_ones():
    vector = tiny_vector(std=0.02)
    before = vector.values.copy()
    tokens = np.arange(300) % 13
    new = train(vector.params, tokens, N_HEAD, n_ctx=6, steps=60, batch_size=8, learning_rate=0.02, warmup_steps=5)
    assert (vector.values == before).all()
    loss = [loss_and_grads(params, tokens[:6], tokens[1:7], N_HEAD)[0] for params in (vector.params, new)]
    assert loss[0] > 2.4 and loss[1] < 0.5
    ids = list(picogpt.gpt2.generate([3, 4, 5], new, N_HEAD, 3))
    assert ids == [6, 7, 8]


def test_train_begins_with_the_weights_it_is_given():
    vector = tiny_vector()
    for average in (0.0, 0.9):
        rates = {"learning_rate": 0.0, "min_learning_rate": 0.0}
        new = train(vector.params, TOKENS, N_HEAD, steps=2, average=average, **rates)
        np.testing.assert_array_equal(as_vector(new), vector.values)


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({"tokens": [1, 2, 3]}, "longer than a window"),
        ({"tokens": [1.5] * 100}, "token ids"),
        ({"tokens": [13] * 100}, "expected ids from 0 to 12, found 13"),
        ({"tokens": [-1] * 100}, "expected ids from 0 to 12, found -1"),
        ({"n_ctx": 0}, "n_ctx must be a whole number from 1 to 8, found 0"),
        ({"n_ctx": 9}, "found 9"),
        ({"n_ctx": 2.5}, "found 2.5"),
        ({"steps": 0}, "steps must be 1 or more"),
        ({"n_head": 5}, "n_head"),
        ({"learning_rte": 1}, "unknown setting learning_rte: did you mean learning_rate?"),
    ],
)
def test_train_refuses(wrong, words):
    arguments = {"tokens": TOKENS, "n_head": N_HEAD, "steps": 1} | wrong
    with pytest.raises(UserError) as caught:
        train(tiny_vector().params, **arguments)
    assert words in str(caught.value)


WRONG_SETTINGS = [
    ("steps", 0, "steps must be 1 or more, found 0: try 2000"),
    ("steps", 1.5, "steps must be a whole number, found 1.5: try 2000"),
    ("steps", True, "steps must be a whole number, found True"),
    ("steps", "many", "steps must be a whole number, found 'many'"),
    ("batch_size", 0, "batch_size must be 1 or more"),
    ("learning_rate", -0.1, "learning_rate must be 0 or more, found -0.1"),
    ("learning_rate", math.nan, "learning_rate must be a number, found nan"),
    ("learning_rate", math.inf, "learning_rate must be finite, found inf"),
    ("learning_rate", None, "learning_rate must be a number, found None"),
    ("beta_1", 1.0, "beta_1 must be 1 at most"),
    ("beta_2", -1, "beta_2 must be 0 or more"),
    ("dropout", 1.0, "dropout must be 1 at most"),
    ("average", 1.0, "average must be 1 at most"),
    ("seed", -1, "seed must be 0 or more"),
]


@pytest.mark.parametrize(("name", "value", "words"), WRONG_SETTINGS, ids=[f"{n}={v}" for n, v, _ in WRONG_SETTINGS])
def test_settings_refuse(name, value, words):
    with pytest.raises(UserError) as caught:
        Settings(**{name: value})
    assert str(caught.value).startswith(words) and "try" in str(caught.value)


def test_settings_at_their_limits():
    Settings(steps=1, batch_size=1, learning_rate=0, beta_1=0.0, beta_2=0.999, dropout=0.99, average=0.9999, clip=0)
    assert Settings(batch_size=8).batch_size_at(0) == 8
