"""The architecture experiments: fair, repeatable, resumable, and told as they came out."""

import json
import math
import re
import signal
import subprocess
import sys
import time

import numpy as np
import pytest

from byhand import cli
from byhand.experiments import architecture, architecture_report, processes
from byhand.experiments.architecture import SUITES, Architecture, Result, Watcher, run, summary
from byhand.experiments.documentation import insert
from byhand.model_source import open_model
from numpy_impl.models.decoder import Decoder

TINY = dict(steps=3, batch=2, length=16, d_model=12, n_layers=1, n_heads=2, validate_every=2, validation_batches=1, jobs=1, seeds=1)
FLAGS = [word for name, value in TINY.items() for word in (f"--{name.replace('_', '-')}", str(value))]


@pytest.fixture(scope="module")
def text(tmp_path_factory):
    path = tmp_path_factory.mktemp("text") / "text.py"
    path.write_bytes(bytes(np.random.default_rng(0).integers(97, 101, 4000, dtype=np.uint8)))
    return str(path)


def result(variant, seed, loss, diverged=None, parameters=7):
    return Result(variant, seed, parameters, [3.0, loss], {1: 3.0, 2: loss}, 1000.0, 2.0, diverged)


@pytest.mark.parametrize("suite", SUITES)
def test_both_implementations_tell_the_same(suite, text):
    in_torch, by_hand = (run(suite, Architecture(**TINY, text=text, backend=backend)) for backend in ("torch", "numpy"))
    assert [r.variant for r in in_torch] == [r.variant for r in by_hand] == list(SUITES[suite].variants(Architecture()))
    for one, other in zip(in_torch, by_hand, strict=True):
        assert one.parameters == other.parameters and list(one.validation) == [2, 3] and len(one.losses) == 3
        np.testing.assert_allclose(one.losses, other.losses, rtol=1e-5)
        np.testing.assert_allclose(one.loss, other.loss, rtol=1e-5)
    assert len({r.loss for r in in_torch}) == len(in_torch)                # every variant is another model


def test_variants_differ_in_one_choice_and_see_the_same_text(text, monkeypatch):
    seen = {}
    real = architecture.corpus.draw

    def drawn(tokens, **options):
        seen.setdefault((options["seed"], options["step"]), set()).add((pair := real(tokens, **options))[0].tobytes())
        return pair

    monkeypatch.setattr(architecture.corpus, "draw", drawn)
    run("attention", Architecture(**TINY | dict(seeds=2), text=text, backend="numpy"))
    assert set(seen) >= {(seed, step) for seed in (0, 1) for step in range(3)} and all(len(windows) == 1 for windows in seen.values())
    for suite in SUITES.values():
        for changes in suite.variants(Architecture()).values():
            assert len(changes.keys() - {"window", "stride", "d_hidden"}) == 1


def test_gated_feed_forward_has_as_many_parameters():
    configs = architecture.chosen("activations", Architecture())
    counts = {name: sum(array.size for array in Decoder(config).parameters().values()) for name, config in configs.items()}
    assert len(set(counts.values())) == 1 and configs["SwiGLU"].d_hidden == 256


def test_processes_do_what_one_does(text, tmp_path):
    options = dict(text=text, backend="numpy", only="pre, post")
    alone = run("norms", Architecture(**TINY | dict(jobs=1), **options))
    steps = []

    class Steps(Watcher):
        def step(self, variant, seed, step, loss):
            steps.append((variant, step))

    together = run("norms", Architecture(**TINY | dict(jobs=2), **options), watcher=Steps())
    assert [r.losses for r in together] == [r.losses for r in alone]
    assert sorted(steps) == sorted((variant, step) for variant in ("pre", "post") for step in (1, 2, 3))


def test_what_is_done_is_kept(text, tmp_path, monkeypatch):
    options = Architecture(**TINY, text=text, backend="numpy", only="pre")
    first = run("norms", options, out=tmp_path)
    assert {file.name for file in tmp_path.iterdir()} == {"config.json", "pre-0.json", "pre-0.safetensors"}
    trained = []
    real = architecture._train
    monkeypatch.setattr(architecture, "_train", lambda report, options, name, seed, config: (
        trained.append((name, seed)), real(report, options, name, seed, config))[1])
    more = run("norms", Architecture(**TINY | dict(seeds=2), text=text, backend="numpy", only="RMS,pre"), out=tmp_path)
    assert trained == [("RMS", 0), ("pre", 1), ("RMS", 1)] and more[0] == first[0]
    with pytest.raises(ValueError, match=r"the options that it was begun with; got differing \['lr'\]"):
        run("norms", Architecture(**TINY, text=text, backend="numpy", lr=1.0), out=tmp_path)
    with pytest.raises(ValueError, match="suite"):
        run("positions", Architecture(**TINY, text=text, backend="numpy"), out=tmp_path)
    source = open_model(str(tmp_path / "pre-0.safetensors"))               # and its weights can be drawn
    assert source.model.config == architecture.chosen("norms", options)["pre"]


def test_a_loss_that_is_not_finite_is_a_result(text, tmp_path, monkeypatch):
    real, calls = Decoder.loss, []

    def loss(self, *args, **options):
        value, backward = real(self, *args, **options)
        calls.append(options["run"])
        return (value * math.nan if calls.count("keep") == 2 else value), backward

    monkeypatch.setattr(Decoder, "loss", loss)
    options = Architecture(**TINY, text=text, backend="numpy", only="pre,post")
    one, other = run("norms", options, out=tmp_path)
    assert (one.diverged, len(one.losses), math.isnan(one.loss)) == (1, 1, True) and other.diverged is None
    again = run("norms", options, out=tmp_path)                            # NaN survives the files
    assert again[1] == other and again[0]._replace(tokens_per_second=0) == one._replace(tokens_per_second=0)


def test_not_even_a_first_step_is_a_result_too(text, tmp_path, monkeypatch):
    real = Decoder.loss
    monkeypatch.setattr(Decoder, "loss", lambda self, *args, **options: (math.nan, real(self, *args, **options)[1]))
    options = Architecture(**TINY, text=text, backend="numpy", only="pre")
    for _ in range(2):                                                     # from training, and from the files
        (row,) = summary(run("norms", options, out=tmp_path))
        assert row.diverged == 1 and math.isnan(row.tokens_per_second) and row.parameters > 0
        assert "diverged" in architecture_report.cells(row, math.nan)
    assert architecture_report.write("norms", options, run("norms", options, out=tmp_path), tmp_path)


def test_ending_worse_than_chance_is_diverging_too(text):
    found = run("norms", Architecture(**TINY | dict(steps=6), text=text, backend="numpy", only="none", lr=3.0, max_norm=1e9))[0]
    assert found.diverged is not None and math.isnan(found.loss)


def test_the_summary_means_over_seeds():
    rows = summary([result("a", 0, 1.0), result("a", 1, 2.0), result("b", 0, 1.5, diverged=2), result("b", 1, 1.0), result("c", 0, 0.5)])
    assert rows[0].loss == 1.5 and rows[0].spread == pytest.approx(math.sqrt(0.5)) and rows[0].perplexity == pytest.approx(math.exp(1.5))
    assert (rows[1].diverged, rows[1].seeds) == (1, 2) and math.isnan(rows[1].loss)
    assert math.isnan(rows[2].spread) and rows[2].loss == 0.5


def test_the_report_has_the_best_first_and_everything_in_files(tmp_path):
    results = [result("pre", 0, 1.0), result("pre", 1, 2.0), result("RMS", 0, 1.25), result("RMS", 1, 1.25),
               result("none", 0, 9.0, diverged=2), result("none", 1, 9.0, diverged=2)]
    assert [line.split(" | ")[:3] for line in architecture_report.table(results).splitlines()[2:]] == [
        ["| RMS", "1.250 ± 0.000", "3.49"], ["| pre", "1.500 ± 0.707 (+0.250)", "4.48"], ["| none", "diverged", "–"],
    ]
    written = architecture_report.write("norms", Architecture(), results, tmp_path)
    assert [path.name for path in written] == ["table.md", "rows.csv", "rows.json", "losses.png"]
    rows = json.loads((tmp_path / "rows.json").read_text())["rows"]
    assert [row["variant"] for row in rows] == ["pre", "RMS", "none"] and rows[2]["loss"] is None and rows[0]["loss"] == 1.5
    lines = (tmp_path / "rows.csv").read_text().splitlines()
    assert lines[0].startswith("variant,loss,spread,perplexity") and lines[2].startswith("RMS,1.25,0.0,3.49")
    assert (tmp_path / "losses.png").read_bytes().startswith(b"\x89PNG")


def test_the_command_writes_table_figure_and_document(tmp_path, text, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    document = tmp_path / "page.md"
    document.write_text("before\n<!-- norms:start -->\nold\n<!-- norms:end -->\nafter\n")
    command = ["experiment", "norms", "--backend", "numpy", "--only", "RMS", "--text", text, "--docs", str(document), *FLAGS]
    assert cli.main(command) == 0
    printed = capsys.readouterr()
    assert re.search(r"^variant +validation loss", printed.out, re.MULTILINE) and re.search(r"^RMS +\d\.\d{3} ", printed.out, re.MULTILINE)
    assert "RMS, seed 0: validation loss" in printed.err and "seed 0" not in printed.out
    (directory,) = (tmp_path / "runs").iterdir()
    page = document.read_text()
    assert page.startswith("before\n<!-- norms:start -->\n") and page.endswith("\n<!-- norms:end -->\nafter\n") and "old" not in page
    assert "byhand experiment norms --backend numpy --only RMS --seeds 1 --steps 3 --batch 2" in page
    assert "| RMS | " in page and "](images/experiment-norms.png)" in page
    assert (tmp_path / "images" / "experiment-norms.png").read_bytes() == (directory / "losses.png").read_bytes()
    assert cli.main(command) == 0                                          # the same command: nothing is trained again
    assert "(done before)" in capsys.readouterr().err and document.read_text() == page


def test_long_context_is_one_of_them(tmp_path, text, capsys):
    tiny = dict(length=16, d_model=16, n_layers=1, n_heads=2, d_hidden=16, steps=2, batch=4, adapt_steps=0, segments=2, read_tokens=64)
    document = tmp_path / "page.md"
    document.write_text("<!-- long-context:start --><!-- long-context:end -->\n")
    flags = [word for name, value in tiny.items() for word in (f"--{name.replace('_', '-')}", str(value))]
    flags += ["--factors", "2", "--factors", "4", "--schemes", "none", "--schemes", "yarn", "--backend", "numpy", "--text", text]
    assert cli.main(["experiment", "long-context", "--out", str(tmp_path / "run"), "--docs", str(document), *flags]) == 0
    assert "| yarn | no |" in capsys.readouterr().out
    page = document.read_text()
    assert "--factors 2 --factors 4 --schemes none --schemes yarn" in page and "| yarn | no |" in page
    assert (tmp_path / "images" / "experiment-long-context.png").exists()


@pytest.mark.parametrize(("arguments", "complaint"), [
    (["positons"], 'Did you mean "positions"'),
    (["norms", "--only", "pre,pots"], "did you mean 'post'"),
    (["norms", "--steps", "0"], "steps as an integer >= 1"),
    (["norms", "--length", "4"], "length as an integer >= 8"),
    (["norms", "--n-heads", "5"], "d_model to be a multiple of n_heads"),
    (["norms", "--backend", "numpy", "--device", "cuda"], "device 'cpu' for the numpy backend"),
    (["norms", "--jobs", "0"], "jobs as an integer >= 1"),
    (["norms", "--text", "/no/such/text"], "a file or a directory that exists"),
])
def test_wrong_usage_ends_with_2_and_makes_nothing(tmp_path, monkeypatch, capsys, arguments, complaint):
    monkeypatch.chdir(tmp_path)
    assert cli.main(["experiment", *arguments]) == 2
    assert re.search(complaint, capsys.readouterr().err) and not list(tmp_path.iterdir())


def test_a_document_without_markers_is_refused_before_training(tmp_path, text, capsys):
    (tmp_path / "page.md").write_text("<!-- norms:end --> <!-- norms:start -->")
    out = tmp_path / "run"
    assert cli.main(["experiment", "norms", "--text", text, "--docs", str(tmp_path / "page.md"), "--out", str(out), *FLAGS]) == 2
    assert "each once and in this order" in capsys.readouterr().err and not out.exists()
    with pytest.raises(ValueError, match="a document it can read"):
        insert(tmp_path / "none.md", "norms", "text")


@pytest.mark.skipif(sys.platform == "win32", reason="signals")
def test_an_interruption_keeps_what_is_done_and_leaves_no_process(tmp_path, text):
    flags = [*FLAGS[:-4], "--backend", "numpy", "--jobs", "2", "--seeds", "400"]
    command = [sys.executable, "-m", "byhand", "experiment", "norms", "--text", text, "--out", str(tmp_path / "run"), *flags]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        while "seed 0: validation loss" not in process.stderr.readline():
            assert process.poll() is None
        process.send_signal(signal.SIGINT)
        start = time.monotonic()
        try:
            _, printed = process.communicate(timeout=20)                   # which waits for every process that holds the pipe
        finally:
            process.kill()
    assert process.returncode == 130 and "the same command goes on from there" in printed and "Traceback" not in printed
    assert time.monotonic() - start < 20 and list((tmp_path / "run").glob("*-0.json"))


def test_errors_and_deaths_of_processes_arrive():
    assert dict(processes.run(_double, [(1,), (2,), (3,)], jobs=2, report=lambda *_: None)) == {(1,): 2, (2,): 4, (3,): 6}
    with pytest.raises(ValueError, match="three"):
        list(processes.run(_fail_at_three, [(1,), (3,)], jobs=2, report=lambda *_: None))
    with pytest.raises(RuntimeError, match=r"exit codes \[.*7"):
        list(processes.run(_die, [(1,), (2,)], jobs=2, report=lambda *_: None))


def _double(report, number):
    return 2 * number


def _fail_at_three(report, number):
    if number == 3:
        raise ValueError("three")


def _die(report, number):
    import os

    os._exit(7)
