"""Training divided among processes computes what one process computes."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from bfedge.errors import BfedgeError
from bfedge.training import processes
from bfedge.training.batches import batches
from bfedge.training.loop import Trainer
from bfedge.training.optimiser import parameter_groups
from tests.training_runs import digits, small_recipe

pytestmark = pytest.mark.slow

SETTINGS = {"model__experts": 64, "model__top_k": 1, "model__patch_size": 4, "training__batch_size": 16}
SETTINGS |= {"augmentation__mixup": 0.3, "augmentation__affine": 0.5}
"""With 64 experts and 8 images of 4 patches in a process, many experts get nothing to do."""


def first_steps(feed_forward: str, out: Path) -> dict[str, Any]:
    """What three steps compute, in each of the processes."""
    trainer = Trainer(small_recipe(**SETTINGS, model__feed_forward=feed_forward), digits(), out)
    trainer.epoch, trainer.optimiser = 1, torch.optim.SGD(parameter_groups(trainer.model, 0, 1), 0.1)
    stream = batches(trainer.data, 16, trainer.recipe.augmentation, 0, 1, processes.part(16), trainer.device)
    trainer.model.train()
    losses, gradients, idle = [], {}, 0
    for step, (images, targets) in zip(range(1, 4), stream, strict=False):
        result = trainer.train_step(images, targets, step)
        losses.append(float(processes.mean(result.total.detach())))
        gradients = gradients or {n: p.grad.clone() for n, p in trainer.model.named_parameters()}
        routings = trainer.model.forward_with_routing(images)[1]
        idle += sum(int((torch.bincount(r.selected.flatten(), minlength=64) == 0).sum()) for r in routings)
    found = {"losses": losses, "gradients": gradients, "shares": result.shares, "idle": idle}
    return found | {"weights": trainer.model.state_dict()}


def launch(count: int, *arguments: object) -> subprocess.CompletedProcess[str]:
    torchrun = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(count)]
    root = str(Path(__file__).parents[1])
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": root}
    command = [sys.executable, *torchrun, *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, env=environment, timeout=300)


@pytest.fixture(scope="module")
def two_processes(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, Any]]:
    folder = tmp_path_factory.mktemp("processes")
    script, out = folder / "steps.py", folder / "found.pt"
    script.write_text(
        "from pathlib import Path\n"
        "import torch\n"
        "from bfedge.training import processes\n"
        "from tests.test_processes import first_steps\n"
        "torch.set_num_threads(1)\n"
        f"out = Path({str(out)!r})\n"
        "with processes.processes(torch.device('cpu')):\n"
        "    found = {kind: first_steps(kind, out) for kind in ('butterfly', 'standard')}\n"
        "    if processes.rank() == 0:\n"
        "        torch.save(found, out)\n"
    )
    result = launch(2, script)
    assert result.returncode == 0, result.stderr
    found: dict[str, dict[str, Any]] = torch.load(out, weights_only=True)
    return found


@pytest.mark.parametrize("feed_forward", ["butterfly", "standard"])
def test_two_processes_compute_what_one_does(
    tmp_path: Path, two_processes: dict[str, dict[str, Any]], feed_forward: str
) -> None:
    threads = torch.get_num_threads()
    one, two = first_steps(feed_forward, tmp_path / "m.pt"), two_processes[feed_forward]
    torch.set_num_threads(threads)
    assert two["idle"] > 0
    assert one["losses"] == pytest.approx(two["losses"], rel=1e-4)
    assert one["losses"][0] == pytest.approx(two["losses"][0], rel=1e-6)
    assert torch.allclose(one["shares"], two["shares"])
    for name, gradient in one["gradients"].items():
        assert torch.allclose(gradient, two["gradients"][name], rtol=1e-4, atol=1e-6), name
    assert float(one["gradients"]["blocks.0.experts.router.gate.weight"].abs().max()) > 1e-4
    for name, weight in one["weights"].items():
        assert torch.allclose(weight, two["weights"][name], atol=1e-4), name


TINY = ["--set=model.layers=1", "--set=model.d_model=16", "--set=model.d_ff=16", "--set=model.experts=2"]


def errors(text: str) -> list[str]:
    return [line for line in text.splitlines() if re.match("error:|hint:", line)]


def test_the_command_under_torchrun(tmp_path: Path) -> None:
    path = tmp_path / "m.pt"
    common = ["-m", "bfedge", "train", "digits", *TINY, "--out", path, "--device", "cpu"]
    result = launch(2, *common, "--epochs", "2", "--json")
    assert result.returncode == 0, result.stderr
    value = json.loads(result.stdout)  # once, from the first process
    assert [e["epoch"] for e in value["epochs"]] == [1, 2]
    assert value["deployed_accuracy"] == value["epochs"][-1]["accuracy"]
    assert result.stderr.count("2 processes, each: CPU") == 1
    assert result.stderr.count("epoch   1/2") == 1

    diverged = launch(2, *common, "--set", "training.learning_rate=1e6", "--set", "training.gradient_clip=1e6",
                      "--set", "training.warmup_share=0", "--epochs", "500")  # fmt: skip
    assert len(errors(diverged.stderr)) == 2, diverged.stderr
    assert "diverged" in errors(diverged.stderr)[0]


def test_a_batch_that_cannot_be_divided(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(processes, "count", lambda: 2)
    with pytest.raises(BfedgeError, match=r"batch_size 63 does not divide among 2 processes") as caught:
        Trainer(small_recipe(training__batch_size=63), digits(), tmp_path / "m.pt")
    assert caught.value.hint == "--set training.batch_size=64"


def test_an_error_in_one_process_ends_all_with_one_message(tmp_path: Path) -> None:
    script = tmp_path / "fail.py"
    script.write_text(
        "import sys\n"
        "from bfedge.cli.main import main\n"
        "from bfedge.errors import BfedgeError\n"
        "from bfedge.training import processes\n"
        "from bfedge.training.loop import Trainer\n"
        "step = Trainer.train_step\n"
        "def failing(trainer, images, targets, number):\n"
        "    if processes.rank() == 1 and number == 3:\n"
        "        raise BfedgeError('the second one fails')\n"
        "    return step(trainer, images, targets, number)\n"
        "Trainer.train_step = failing\n"
        f"sys.argv[1:] = {['train', 'digits', *TINY, '--out', str(tmp_path / 'm.pt'), '--device', 'cpu']}\n"
        "main()\n"
    )
    result = launch(2, script)
    assert result.returncode != 0
    assert errors(result.stderr) == ["error: the second one fails"]
    assert result.stdout == ""
    assert not (tmp_path / "m.pt").exists()
