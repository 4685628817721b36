"""`bfedge compare`: its figures against independent computations, and what it says and writes."""

from __future__ import annotations

import copy
import json
import math
import re
import shlex
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from bfedge.bench.timing import Clock
from bfedge.cli import main
from bfedge.cli.models import packed_bytes
from bfedge.compare import torch_times
from bfedge.compare.markdown import write_markdown
from bfedge.compare.plot import write_plot
from bfedge.compare.rounding import (
    STATIC,
    TRITS,
    TWO_BITS,
    absmean,
    float_calls,
    layer_errors,
    least_squares,
    rounded_model,
)
from bfedge.compare.routing import layer_routing
from bfedge.compare.study import short_names
from bfedge.model.checkpoint import Checkpoint, load_checkpoint, save_checkpoint
from bfedge.model.experts import Routing, StandardExperts
from bfedge.model.layers import float_arithmetic
from bfedge.model.vit import ViT
from bfedge.training.data import load_data
from bfedge.training.evaluation import evaluate
from bfedge.training.recipe import load_recipe
from bfedge.training.results import EpochResult
from tests.random_models import random_config, random_vit

KINDS = ("butterfly", "standard", "dense")
TINY = ["d_model=16", "d_ff=24", "layers=2", "heads=2", "experts=4", "patch_size=4"]


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a small model of each kind, trained for a few steps on digits, and a butterfly model without the
    smoothness loss.
    """
    folder = tmp_path_factory.mktemp("trained")
    for name in (*KINDS, "rough"):
        kind = name if name in KINDS else "butterfly"
        options = [f"--set=model.{field}" for field in (*TINY, f'feed_forward="{kind}"')]
        options += ["--set=training.subset=320", "--epochs=2", f"--out={folder / name}.pt"]
        options += ["--set=training.smoothness_weight=0", "--seed=7"] if name == "rough" else []
        assert main.run(["train", "digits", "--threads=1", *options]) == 0
    return folder


def checkpoints(folder: Path, *names: str) -> list[str]:
    return [str(folder / f"{name}.pt") for name in names]


class Ran:
    def __init__(self, status: int, out: str, err: str) -> None:
        self.status, self.out, self.err = status, out, err

    @property
    def json(self) -> dict[str, Any]:
        assert self.status == 0, self.err
        found: dict[str, Any] = json.loads(self.out)
        return found


@pytest.fixture
def compare(capfd: pytest.CaptureFixture[str]) -> Any:
    """`bfedge compare ARGUMENTS`; what it prints as JSON is checked against its schema (conftest.py)."""

    def call(*arguments: object) -> Ran:
        capfd.readouterr()
        status = main.run(["compare", *map(str, arguments)])
        return Ran(status, *capfd.readouterr())

    return call


# ----- models side by side -----


def test_models_side_by_side(compare: Any, trained: Path, tmp_path: Path) -> None:
    """Accuracies are those of an evaluation of one's own, and stand in JSON, tables and Markdown alike."""
    out, plot = tmp_path / "results.md", tmp_path / "plots" / "curves.svg"
    options = ["--images", 24, "--rounds", 3, "--batch", 8, "--out", out, "--plot", plot]
    found = compare(*checkpoints(trained, *KINDS, "rough"), *options, "--json").json
    written = out.read_text()
    test = load_data("digits", None, None)
    assert [model["name"] for model in found["models"]] == [*KINDS, "rough"]
    for model in found["models"]:
        checkpoint = load_checkpoint(trained / f"{model['name']}.pt")
        deployed = evaluate(checkpoint.model, test).accuracy
        with float_arithmetic(checkpoint.model):
            in_float = evaluate(checkpoint.model, test).accuracy
        accuracy = model["accuracy"]
        assert accuracy["deployed"]["top1"] == pytest.approx(deployed)
        assert accuracy["in_float"]["top1"] == pytest.approx(in_float)
        error = math.sqrt(deployed * (1 - deployed) / len(test.test_targets))
        assert accuracy["deployed"]["standard_error"] == pytest.approx(error)
        assert f"{deployed:.2%} ± {error:.2%}" in written
        assert model["sizes"]["parameters"] == sum(p.numel() for p in checkpoint.model.parameters())
        assert [epoch["epoch"] for epoch in model["training"]["epochs"]] == [1, 2]
        assert model["training"]["epochs"][-1]["accuracy"] == pytest.approx(deployed)
    sizes = {model["name"]: model["sizes"] for model in found["models"]}
    assert sizes["butterfly"]["file"] == len(packed_bytes(trained / "butterfly.pt", "2bit"))
    assert sizes["standard"]["experts_as_counted"] == 2 * 4 * 2 * 16 * 24 * 4  # layers, experts, matrices, float32
    assert sizes["dense"]["experts"] == 2 * (2 * 16 * 24 + 4 * (16 + 24))  # int8 and a scale a row
    assert sizes["butterfly"]["experts"] < sizes["standard"]["experts"] / 3
    for part in (*KINDS, "rough", "digits", "plots/curves.svg", "bfedge compare butterfly.pt"):
        assert part in written
    assert str(trained) not in written
    assert all(name in plot.read_text() for name in KINDS)
    timed = [case for times in found["times"] for case in times["cases"]]
    assert {case["timed"][0]["name"] for case in timed} == {"standard"}
    assert {case["what"] for case in timed} == set(torch_times.CALLS)
    claims = {row["what"]: row for row in found["paper"]}
    gap = 100 * (
        found["models"][0]["accuracy"]["deployed"]["top1"] - found["models"][1]["accuracy"]["deployed"]["top1"]
    )
    assert claims["accuracy, ButterflyViT less StandardMoE"]["here"] == pytest.approx(gap)
    assert claims["accuracy, ButterflyViT less StandardMoE"]["difference"] == pytest.approx(gap + 0.85)


def test_one_model_without_training_state(compare: Any, trained: Path, tmp_path: Path) -> None:
    checkpoint = load_checkpoint(trained / "dense.pt")
    save_checkpoint(tmp_path / "plain.safetensors", Checkpoint(checkpoint.model, checkpoint.labels, checkpoint.data))
    shown = compare(tmp_path / "plain.safetensors", "--no-times")
    assert shown.status == 0
    assert re.search(r"^training time +n/a$", shown.out, re.M)
    assert "Learning curve" not in shown.out
    assert "Expert similarity" not in shown.out


def test_the_commands_train_what_was_compared(compare: Any, trained: Path, tmp_path: Path) -> None:
    """recipe.toml and the options that Markdown shows give each model's recipe."""
    out = tmp_path / "results.md"
    assert compare(*checkpoints(trained, "dense", "rough"), "--no-times", "--images", 2, "--out", out).status == 0
    text = out.read_text()
    (tmp_path / "recipe.toml").write_text(re.findall(r"```toml\n(.*?)```", text, re.S)[0])
    commands = [shlex.split(line) for line in text.splitlines() if line.startswith("bfedge train")]
    for name, command in zip(("dense", "rough"), commands, strict=True):
        assert command[-2:] == ["--out", f"{name}.pt"]
        overrides = dict(command[n + 1].split("=", 1) for n, word in enumerate(command) if word == "--set")
        values = msgspec.to_builtins(load_recipe(str(tmp_path / "recipe.toml"), overrides))
        expected = load_checkpoint(trained / f"{name}.pt").training["recipe"]
        assert values == expected


def test_results_go_into_their_place(compare: Any, trained: Path, tmp_path: Path) -> None:
    """Text around the results of an earlier run is kept; a file without a place for results is left alone."""
    out = tmp_path / "results.md"
    begin, end = "<!-- bfedge compare: begin -->", "<!-- bfedge compare: end -->"
    out.write_text(f"# My results\n\n{begin}\nold\n{end}\n\nThe end.\n")
    options = ["--no-times", "--images", 2, "--out", out]
    assert compare(*checkpoints(trained, "dense"), *options).status == 0
    text = out.read_text()
    assert text.startswith(f"# My results\n\n{begin}\n## What was run")
    assert text.endswith(f"{end}\n\nThe end.\n")
    assert "old" not in text.splitlines()
    out.write_text("my thesis\n")
    refused = compare(*checkpoints(trained, "dense"), *options)
    assert refused.status == 1
    assert "has no place for results" in refused.err
    assert out.read_text() == "my thesis\n"


def test_short_names() -> None:
    assert short_names([Path("a/x.pt"), Path("a/y.pt")]) == ["x", "y"]
    assert short_names([Path("a/x.pt"), Path("b/x.pt")]) == ["a/x", "b/x"]
    assert short_names([Path("a/x.pt"), Path("a/x.safetensors")]) == ["a/x.pt", "a/x.safetensors"]


# ----- mistakes -----


def test_mistakes(compare: Any, trained: Path, tmp_path: Path) -> None:
    dense = trained / "dense.pt"
    checkpoint = load_checkpoint(dense)
    config = checkpoint.model.config

    def saved(name: str, model: ViT, labels: tuple[str, ...] = (), data: str = "digits", **training: Any) -> Path:
        path = tmp_path / f"{name}.pt"
        save_checkpoint(path, Checkpoint(model, labels, data, training))
        return path

    classes = ViT(msgspec.structs.replace(config, classes=7))
    larger = ViT(msgspec.structs.replace(config, image_height=16))
    state = load_checkpoint(dense).training
    (tmp_path / "broken.pt").write_bytes(dense.read_bytes()[:1000])
    letters = tuple("abcdefghij")
    nan = [epoch | {"loss": math.nan} for epoch in state["history"]]
    for arguments, message in (
        ([], "no checkpoint to compare"),
        (["--time-layers", "--data", "digits"], "--data and --plot are for checkpoints"),
        ([dense, dense], "is given twice"),
        ([dense, saved("classes", classes)], "has 10 classes, `.*` 7"),
        ([dense, saved("larger", larger)], "takes images of 8x8x1, `.*` of 16x8x1"),
        ([dense, saved("letters", checkpoint.model, letters)], "class 0 is `0` in `.*` and `a` in"),
        ([dense, saved("elsewhere", checkpoint.model, data="faces")], "was trained on `digits`, `.*` on `faces`"),
        ([saved("nowhere", checkpoint.model, data="")], "does not say what it was trained on"),
        ([saved("gone", checkpoint.model, data="no/such")], "`no/such` is neither"),
        ([dense, "--data", "no/such"], "`no/such` is neither"),
        ([saved("history", checkpoint.model, **{**state, "history": [{"epoch": 1}]})], "training state .* is damaged"),
        ([saved("losses", checkpoint.model, **{**state, "history": nan})], "training state .* is damaged"),
        ([saved("bare", checkpoint.model), "--plot", tmp_path / "r.svg"], "no checkpoint says how it was trained"),
        ([tmp_path / "broken.pt"], "is damaged, truncated"),
        ([tmp_path / "missing.pt"], "there is no checkpoint"),
        ([tmp_path / "model.bfe"], "is no checkpoint"),
        ([dense, "--out", tmp_path / "r.txt"], "ends in .md"),
        ([dense, "--out", tmp_path / "letters.pt" / "r.md"], "cannot write"),
        ([dense, "--plot", tmp_path / "r.pdf"], "ends in .svg or .png"),
    ):
        result = compare(*arguments)
        assert (result.status, result.out) == (1, ""), arguments
        assert re.match(f"error: .*{message}", result.err), (arguments, result.err)


# ----- static quantisation -----


def test_what_has_the_levels_already_is_kept() -> None:
    generator = torch.Generator().manual_seed(1)
    scales = torch.rand(3, 8, 1, generator=generator) + 0.1
    for levels in (TRITS, TWO_BITS):
        steps = torch.tensor(levels)[torch.randint(len(levels), (3, 8, 50), generator=generator)]
        steps[..., 0] = levels[-1]
        assert torch.allclose(least_squares(steps * scales, levels), steps * scales, rtol=1e-5)
    signs = torch.tensor([-0.3, 0.3])[torch.randint(2, (3, 8, 50), generator=generator)]
    assert torch.allclose(absmean(signs), signs)
    assert not least_squares(torch.zeros(2, 5), TRITS).any()


def test_every_expert_has_a_scale_of_its_own() -> None:
    weight = (
        torch.randn(4, 6, 10, generator=torch.Generator().manual_seed(2)) * torch.tensor([1, 2, 3, 4.0])[:, None, None]
    )
    for expert, rounded in zip(weight, absmean(weight), strict=True):
        gamma = float(expert.abs().mean())
        expected = np.clip(np.rint(expert.numpy() / gamma), -1, 1) * gamma
        assert np.allclose(rounded.numpy(), expected, rtol=1e-6)


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 10_000), st.sampled_from([TRITS, TWO_BITS]), st.integers(2, 40))
def test_the_scale_is_the_best_one(seed: int, levels: tuple[float, ...], columns: int) -> None:
    """No scale of a fine grid rounds a row better, by more than a little."""
    row = torch.randn(1, columns, generator=torch.Generator().manual_seed(seed)).double()
    error = float(((least_squares(row.float(), levels) - row) ** 2).sum())
    values = np.array(levels)
    best = math.inf
    for scale in np.linspace(1e-3, float(row.abs().max()) * 1.2, 3000):
        nearest = values[np.abs(row.numpy()[0, :, None] / scale - values).argmin(1)] * scale
        best = min(best, float(((nearest - row.numpy()[0]) ** 2).sum()))
    assert error <= best + 0.02 * float((row**2).sum())


def test_layer_errors_against_loops() -> None:
    """A standard layer, token by token: what the rounded experts change of its output, routing unchanged."""
    model = random_vit(5, feed_forward="standard", d_model=12, d_ff=10, heads=2, layers=2, experts=3, top_k=2)
    config = model.config
    shape = (3, config.image_height, config.image_width, config.channels)
    images = np.random.default_rng(0).integers(0, 256, shape, np.uint8)
    calls = float_calls(model, images)
    for static in STATIC:
        rounded = rounded_model(model, static)
        with float_arithmetic(rounded):
            errors = layer_errors(rounded, calls)
        for block, other, call, error in zip(model.blocks, rounded.blocks, calls, errors, strict=True):
            layer, changed = block.get_submodule("experts"), other.get_submodule("experts")
            assert isinstance(layer, StandardExperts)
            assert isinstance(changed, StandardExperts)
            assert call.routing
            difference = length = 0.0
            for image, token in np.ndindex(*call.h.shape[:2]):
                outputs = []
                for experts in (layer, changed):
                    out = torch.zeros(12)
                    weights = call.routing.weights[image, token]
                    for weight, expert in zip(weights, call.routing.selected[image, token], strict=True):
                        u = torch.nn.functional.gelu(experts.up[expert] @ call.h[image, token])
                        out += weight * (experts.down[expert] @ u).detach()
                    outputs.append(out.double())
                difference += float(((outputs[0] - outputs[1]) ** 2).sum())
                length += float((outputs[0] ** 2).sum())
            assert error == pytest.approx(difference / length, rel=1e-3)


@pytest.mark.parametrize("kind", KINDS)
def test_nothing_rounded_changes_nothing(kind: str) -> None:
    model = random_vit(6, feed_forward=kind, d_model=16, d_ff=16, heads=2, experts=3, top_k=2)
    config = model.config
    images = np.zeros((2, config.image_height, config.image_width, config.channels), np.uint8)
    images[1] = 200
    calls = float_calls(model, images)
    with float_arithmetic(model):
        assert max(layer_errors(model, calls)) < 1e-10
    assert 0 < max(layer_errors(model, calls)) < 1e-2  # int8
    before = copy.deepcopy(model.state_dict())
    if kind != "butterfly":
        rounded_model(model, STATIC[0])
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


# ----- routing -----


def routing_of(logits: torch.Tensor, top_k: int) -> Routing:
    selected = logits.topk(top_k, -1).indices.sort(-1).values
    return Routing(logits, selected, torch.full(selected.shape, 1 / top_k))


@pytest.mark.parametrize("pooling", ["mean", "class"])
def test_routing_against_loops(pooling: str) -> None:
    config = random_config(3, image_height=12, image_width=8, patch_size=2, experts=4, top_k=2, pooling=pooling)
    rows, columns, first = 6, 4, int(pooling == "class")
    logits = torch.randn(5, first + rows * columns, 4, generator=torch.Generator().manual_seed(0))
    routing = routing_of(logits, 2)
    found = layer_routing(routing, config)
    g = logits[:, first:].double().numpy()
    chosen = [[frozenset(patch) for patch in image] for image in routing.selected[:, first:].tolist()]
    patches = rows * columns

    def square(image: int, a: int, b: int) -> float:
        return float(((g[image, a] - g[image, b]) ** 2).sum())

    follows = [square(image, p, p + 1) for image in range(5) for p in range(patches - 1)]
    pairs = [(image, a, b) for image in range(5) for a in range(patches) for b in range(patches) if a != b]
    neighbours = [
        chosen[image][a] == chosen[image][b]
        for image, a, b in pairs
        if (abs(a // columns - b // columns), abs(a % columns - b % columns)) in ((0, 1), (1, 0))
    ]
    assert found.smoothness == pytest.approx(np.mean(follows), rel=1e-5)
    assert found.any_difference == pytest.approx(np.mean([square(*pair) for pair in pairs]))
    assert found.relative_smoothness == pytest.approx(
        np.mean(follows) / np.mean([square(*pair) for pair in pairs]), 1e-5
    )
    assert found.same_experts == pytest.approx(np.mean(neighbours))
    assert found.any_same_experts == pytest.approx(np.mean([chosen[i][a] == chosen[i][b] for i, a, b in pairs]))
    counts = np.bincount(routing.selected.flatten().numpy(), minlength=4) / routing.selected.numel()
    assert found.shares == pytest.approx(counts)
    assert found.load_balance == pytest.approx(4 * (counts**2).sum())


def test_patches_that_are_alike() -> None:
    """Equal logits: nothing differs between neighbours, and all go to the same experts."""
    config = random_config(3, image_height=8, image_width=8, patch_size=2, experts=4, top_k=2, pooling="mean")
    found = layer_routing(routing_of(torch.tensor([0.4, 0.1, 0.3, 0.2]).expand(2, 16, 4), 2), config)
    assert found.smoothness == 0
    assert found.any_difference == pytest.approx(0)
    assert (found.same_experts, found.any_same_experts) == (1, 1)
    assert found.load_balance == pytest.approx(2)
    lone = random_config(3, image_height=4, image_width=4, patch_size=4, experts=4, top_k=2, pooling="mean")
    alone = layer_routing(routing_of(torch.randn(2, 1, 4), 2), lone)
    assert (alone.smoothness, alone.relative_smoothness, alone.same_experts) == (None, None, None)


# ----- times -----


def test_times_and_ratios_by_a_clock_of_our_own() -> None:
    """A layer that takes 3 ms beside one that takes 1 ms; weights, gradients and modes are as before."""
    now = [0]
    subjects = []
    for name, cost in (("standard", 1_000_000), ("butterfly", 3_000_000)):
        config = random_config(1, d_model=4, d_ff=4, heads=1, experts=2, top_k=1, feed_forward="standard")
        layer = StandardExperts(config).eval()
        subject = torch_times.layer_subject(name, config, layer, torch.randn(2, 3, 4))

        def slow(output: Any = subject.output, cost: int = cost) -> torch.Tensor:
            now[0] += cost
            result: torch.Tensor = output()
            return result

        def loss(slow: Any = slow) -> torch.Tensor:
            return slow().sum()  # type: ignore[no-any-return]

        subjects.append(torch_times.Subject(name, config, layer, slow, loss))
    before = copy.deepcopy(subjects[0].module.state_dict())
    clock = Clock("ours", lambda: now[0])
    cases = [case for case in torch_times.CASES if case[0] != "clipping and AdamW"]  # which the clock does not see
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch_times, "CASES", cases)
        found = torch_times.time_subjects("a layer", subjects, 3, lambda items, _: items, clock)
    assert [(times.what, times.arithmetic) for times in found] == [
        (what, "float" if in_float else "quantised") for what, in_float in cases
    ]
    for times in found:
        first, second = times.timed
        assert (first.microseconds.median, second.microseconds.median) == (1000, 3000)
        assert second.ratio.median == 3
        assert times.kinds == {"standard": "standard", "butterfly": "standard"}
    module = subjects[0].module
    assert all(torch.equal(value, before[name]) for name, value in module.state_dict().items())
    assert all(parameter.grad is None for parameter in module.parameters())
    assert not module.training


def test_times_of_the_papers_layer(compare: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without checkpoints; here with fewer experts."""
    monkeypatch.setattr("bfedge.compare.run.PAPER_EXPERTS", (2,))
    found = compare("--time-layers", "--rounds", 3, "--batch", 1, "--json").json
    (times,) = found["times"]
    assert times["batch"] == 1
    for case in times["cases"]:
        assert [timed["name"] for timed in case["timed"]] == ["standard", "butterfly", "dense"]
        assert case["timed"][0]["ratio"]["median"] == 1
    quantised = [case for case in times["cases"] if case["arithmetic"] == "quantised"]
    step = {case["what"]: case["timed"][0]["microseconds"]["median"] for case in quantised}
    assert step["training step"] > 0.5 * (step["forward and backward"] + step["clipping and AdamW"])
    assert found["models"] == []
    assert [row["what"] for row in found["paper"]] == [f"inference, butterfly over standard MoE, {times['of']}"]


@pytest.mark.parametrize("name", ["$\\frac$", "x\udcff", "_x", "a\nb"])
def test_any_name_of_a_checkpoint_can_be_drawn(tmp_path: Path, name: str) -> None:
    epoch = EpochResult(1, 2.0, 0.5, 1.0, [], 1e-3, 1.0, 100.0)
    write_plot(tmp_path / "curves.svg", {name: [epoch]})
    write_markdown(tmp_path / "results.md", f"of {name}")
    assert (tmp_path / "curves.svg").stat().st_size > 1000
