"""The multi-task experiment: equal sizes, the same examples for all, both implementations alike, and a run that goes on."""

import json
import math
import re

import numpy as np
import pytest

from byhand import cli
from byhand.experiments import multi_task
from byhand.experiments.multi_task import METHODS, MultiTask, Outcome, Result, answers, run
from byhand.experiments.multi_task_backends import learner
from byhand.experiments.multi_task_report import comparison, table, trials, utilisation, write
from byhand.tasks.multi_task import decode, encode, examples

TINY = dict(steps=3, base_steps=3, batch=8, d_model=16, d_hidden=8, n_layers=2, n_heads=2, rank=2, attention_rank=2, experts=4,
            judged=16, seeds=1, lrs=(0.01, 0.02), jobs=1, warmup=1)
FLAGS = [word for name, value in TINY.items() for one in (value if isinstance(value, tuple) else (value,))
         for word in (f"--{name.replace('_', '-')}", str(one))]


@pytest.fixture(scope="module")
def outcome():
    return run(MultiTask(**TINY))


def test_both_implementations_tell_the_same(outcome):
    by_hand = run(MultiTask(**TINY, backend="numpy"))
    for one, other in zip([*outcome.trials, *outcome.results], [*by_hand.trials, *by_hand.results], strict=True):
        assert one[:4] == other[:4] and one.accuracy == other.accuracy
        np.testing.assert_allclose(one.losses, other.losses, rtol=1e-5)
        np.testing.assert_allclose(one.shares, other.shares, atol=0.02)
    assert [(result.method, result.seed) for result in outcome.results] == [(method, 0) for method in METHODS]
    assert len({tuple(result.losses[1:]) for result in outcome.results}) == 4              # every method is another


@pytest.mark.parametrize("options", [{}, dict(rank=1), dict(d_model=96, experts=5, top_k=3), dict(attention_rank=0), TINY])
def test_single_loras_are_as_large_as_told(options):
    options = MultiTask(**options)
    count = {method: learner(options, None, options.adapters(method), seed=0).parameters for method in METHODS}
    row = options.n_layers * 3 * (options.d_model + options.d_hidden)                      # of one more rank
    assert 0 <= count["trainable"] - count["mixlora"] < row and count["unbalanced"] == count["mixlora"]
    idle = options.n_layers * (options.experts - options.top_k) * options.rank * 3 * (options.d_model + options.d_hidden)
    assert 0 <= count["active"] - (count["mixlora"] - idle) < row


def test_the_base_is_frozen():
    options = MultiTask(**TINY)
    base = {name: array.copy() for name, array in learner(options, seed=0).state().items()}
    model = learner(options, base, options.adapters("mixlora"), seed=1)
    batches = multi_task._training(options, 0)
    assert len(list(model.fit(lambda step: [batches(step)], 3, 0.01, 0.1))) == 3
    after = {name.replace(".base.", "."): array for name, array in model.state().items()}
    for name, array in base.items():
        np.testing.assert_array_equal(after[name], array)
    trained = [name for name, array in after.items() if name.endswith("lora_B") and array.any()]
    assert {name.split(".")[2] for name in trained} == {"attn", "mlp"} and len(trained) > 20


def test_batches_are_those_of_the_seed_and_mix_the_tasks():
    options = MultiTask(**TINY | dict(batch=32))
    one, again, other = (multi_task._training(options, seed) for seed in (0, 0, 1))
    for step in (17, 0):
        np.testing.assert_array_equal(one(step)[0], again(step)[0])
    assert not np.array_equal(one(0)[0][:, :3], other(0)[0][:, :3])
    assert len({decode(row[:1]) for row in one(3)[0]}) > 4


def test_answers_end_with_a_newline():
    class Echo:
        """Writes the last digit of what it read, and a newline after it; Sort is never done."""

        def next_logits(self, ids):
            done = ids[:, -1] != encode("=")[0]
            digit = ids[:, -3]                                                               # before ") ="
            said = np.where(done & (ids[:, 0] != encode("Sort")[0]), 0, np.where(done, ids[:, -1], digit))
            return np.eye(40)[said]

    prompts = ["Max(1, 2) =", "Sort(3, 4) =", "First(1, 2, 7) ="]
    assert answers(Echo(), prompts, 4) == ["2\n", "4444", "7\n"]
    drawn = list(examples(16, 0, part="test"))
    assert len(answers(Echo(), [example.prompt for example in drawn], 6)) == 16


def test_padding_balances_nothing():
    options = MultiTask(**TINY, backend="numpy", balance=0.5)
    model = learner(options, None, options.adapters("mixlora"), seed=0).model
    ids, targets = (np.array([encode("Max(1, 2) =")]), np.full((1, 7), -100))
    targets[0, -1] = 5
    wide = np.pad(ids, ((0, 0), (0, 5))), np.pad(targets, ((0, 0), (0, 5)), constant_values=-100)
    np.testing.assert_allclose(model.loss(*wide)[0], model.loss(ids, targets)[0], rtol=1e-6)


def test_what_is_done_is_kept(tmp_path, monkeypatch, outcome):
    first = run(MultiTask(**TINY), out=tmp_path)
    assert [result[:6] for result in first.results] == [result[:6] for result in outcome.results]
    assert len(list(tmp_path.glob("*-100-*.json"))) == 6 and len(list(tmp_path.glob("*-0-*.json"))) == 4

    class Steps(multi_task.Watcher):
        total = steps = 0

        def start(self, total):
            self.total = total

        def step(self, what, step, loss):
            self.steps += 1

    watcher = Steps()
    more = run(MultiTask(**TINY | dict(seeds=2)), out=tmp_path, watcher=watcher)
    assert watcher.total == watcher.steps == 4 * 3
    assert [result for result in more.results if result.seed == 0] == first.results and more.trials == first.trials
    with pytest.raises(ValueError, match=r"the options that it was begun with; got differing \['rank'\]"):
        run(MultiTask(**TINY | dict(rank=3)), out=tmp_path)


def made(method, seed, accuracy, lr=0.01, shares=()):
    return Result(method, seed, lr, 1000, [2.0, 1.0], accuracy, [list(one) for one in shares], 1.0)


def test_tables_tell_what_came_of_it(tmp_path):
    results = [
        made("mixlora", 0, {"Max": 0.8, "Sum": 0.4}, shares=[(0.5, 0.25, 0.25, 0.0)]), made("mixlora", 1, {"Max": 0.6, "Sum": 0.2}),
        made("trainable", 0, {"Max": 0.5, "Sum": 0.3}), made("trainable", 1, {"Max": 0.5, "Sum": 0.3}),
        made("active", 0, {"Max": 0.4, "Sum": 0.1}), made("active", 1, {"Max": 0.4, "Sum": 0.1}),
    ]
    results[1] = results[1]._replace(shares=[[0.25] * 4])
    told = Outcome([made("mixlora", 100, {"Max": 0.5}, lr) for lr in (0.02, 0.01)], results, {"mixlora": 0.02})
    assert table(told).splitlines()[2] == "| MixLoRA | 1,000 | 0.01 | 70 ± 14 | 30 ± 14 | **50.0 ± 14.1** |"
    assert comparison(told).splitlines() == [
        "- against LoRA, equal trainable: mean accuracy 40.0 → 50.0 % (+25.0%), wrong answers 60.0 → 50.0 % (-16.7%); seed by seed "
        "+20.0, +0.0 points",
        "- against LoRA, equal active: mean accuracy 25.0 → 50.0 % (+100.0%), wrong answers 75.0 → 50.0 % (-33.3%); seed by seed "
        "+35.0, +15.0 points",
    ]
    assert utilisation(told).splitlines()[2:] == ["| MixLoRA | 2.00 / 1.00 | 0.00 |"]
    assert trials(told).splitlines()[2] == "| MixLoRA | 50.0 | **50.0** |"
    assert results[0].largest == 2 and math.isnan(results[2].largest)
    names = {path.name for path in write(MultiTask(), told, tmp_path)}
    assert names == {"table.md", "rows.csv", "rows.json", "multi_task.png"}
    assert json.loads((tmp_path / "rows.json").read_text())["options"]["experts"] == 8
    assert (tmp_path / "multi_task.png").read_bytes().startswith(b"\x89PNG")


def test_the_command_writes_into_a_document(tmp_path, capsys):
    document = tmp_path / "page.md"
    document.write_text("<!-- multi-task:start --><!-- multi-task:end -->\n")
    command = ["experiment", "multi-task", "--backend", "numpy", "--out", str(tmp_path / "run"), "--docs", str(document), *FLAGS]
    assert cli.main(command) == 0
    printed = capsys.readouterr()
    assert "| LoRA, equal trainable |" in printed.out and "byhand: MixLoRA, seed 0, lr 0.0" in printed.err
    page = document.read_text()
    assert "byhand experiment multi-task --backend numpy --seeds 1" in page and "](images/experiment-multi-task.png)" in page
    assert cli.main(command) == 0 and "(done before)" in capsys.readouterr().err and document.read_text() == page


@pytest.mark.parametrize(("wrong", "complaint"), [
    (dict(top_k=9), "k <= n_experts"), (dict(tasks=("Mix",)), "did you mean 'Min'"), (dict(trial_seed=2), "a trial_seed that is none"),
    (dict(lrs=()), "lrs as a list"), (dict(lrs=(0.0,)), "lrs"), (dict(judged=3), "an example of every task"), (dict(rank=0), "r as an"),
    (dict(nested=2.0), "nested"), (dict(n_heads=3), "d_model"), (dict(steps=0), "steps"), (dict(balance=-1.0), "balance"),
    (dict(backend="numpy", device="cuda"), "device 'cpu'"), (dict(scaling=0.0), "scaling"),
])
def test_bad_options_are_named(wrong, complaint):
    with pytest.raises(ValueError, match=re.escape(complaint)):
        MultiTask(**wrong)
