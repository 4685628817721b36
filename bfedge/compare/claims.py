"""What the papers print of trained models, beside what `bfedge compare` found."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from bfedge.compare.study import Study
from bfedge.compare.torch_times import Times
from bfedge.measure.claims import MOE, VIT
from bfedge.measure.paper_model import Comparison, compare, less, percent

STATIC_TERNARY = "ternary, AbsMean"
"""The static quantiser that is the paper's own (equation 6)"""
NAMES = {"butterfly": VIT, "standard": "StandardMoE", "dense": "dense FFN"}
ACCURACY = {"butterfly": 56.24, "standard": 57.09, "dense": 59.35}
"""Per cent, Table 1"""
AS_TABLE_1 = "as deployed; the paper's were trained for 50 epochs on all of CIFAR-100, with 7 layers and d_model 256"
SPEED = "torch, eager, float32; the paper's are whole models on two T4 GPUs"


@dataclass(frozen=True)
class Beside:
    model: str
    """Name of the checkpoint, or of two"""
    comparison: Comparison


def beside_papers(studies: Sequence[Study], times: Sequence[Times]) -> list[Beside]:
    """Of each architecture the first model is compared."""
    firsts = {kind: next((s for s in studies if s.subject.kind == kind), None) for kind in NAMES}
    rows: list[Beside] = []
    for found in filter(None, firsts.values()):
        rows += [Beside(found.subject.name, row) for row in [table_1(found), *of_experts(found)]]
    butterfly, standard, dense = firsts["butterfly"], firsts["standard"], firsts["dense"]
    if butterfly and standard:
        rows += [Beside(f"{butterfly.subject.name}, {standard.subject.name}", row) for row in pair(butterfly, standard)]
    if butterfly and dense:
        names = f"{butterfly.subject.name}, {dense.subject.name}"
        rows.append(Beside(names, points("accuracy, ButterflyViT less dense FFN", butterfly, dense)))
    if standard:
        rows.append(Beside(standard.subject.name, collapse(standard)))
    return rows + list(speed(times))


def table_1(study: Study) -> Comparison:
    kind, here = study.subject.kind, 100 * study.deployed.top1
    return Comparison(VIT, "Table 1", f"accuracy, {NAMES[kind]}", f"{ACCURACY[kind]:.2f} %", here,
                      less(here, ACCURACY[kind]), "%", AS_TABLE_1)  # fmt: skip


def of_experts(study: Study) -> list[Comparison]:
    return compare(study.experts, study.subject.kind == "standard") if study.experts else []


def points(what: str, first: Study, second: Study) -> Comparison:
    printed = ACCURACY[first.subject.kind] - ACCURACY[second.subject.kind]
    here = 100 * (first.deployed.top1 - second.deployed.top1)
    return Comparison(VIT, "Table 1", what, f"{printed:+.2f} points", here, less(here, printed), "points", AS_TABLE_1)


def pair(butterfly: Study, standard: Study) -> Iterator[Comparison]:
    yield points("accuracy, ButterflyViT less StandardMoE", butterfly, standard)
    static = standard.static(STATIC_TERNARY)
    saved = percent(1 - butterfly.rounding[0].error / static.error) if static and static.error else None
    yield Comparison(MOE, "summary", "less error at deployment than static ternary", "97%", saved, less(saved, 97), "%",
                     "another reading: of feed-forward outputs, what deploying changes after training. The butterfly "
                     "model learned its ternary matrix, so int8 and FP16 angles are all; StandardMoE's experts are "
                     "made ternary (equation 6) untrained for it")  # fmt: skip


def collapse(standard: Study) -> Comparison:
    static = standard.static(STATIC_TERNARY)
    here = None if static is None else 100 * static.accuracy.top1
    before, chance = 100 * standard.in_float.top1, 100 / standard.subject.config.classes
    return Comparison(MOE, "abstract", "static ternary experts", "collapse", here, None, "%",
                      f"accuracy of StandardMoE with rounded experts (equation 6); {before:.2f}% before, "
                      f"{chance:.2f}% by chance; the paper speaks of training")  # fmt: skip


def speed(times: Sequence[Times]) -> Iterator[Beside]:
    for case in times:
        ratio = {timed.name: timed.ratio.median for timed in case.timed}
        name = {kind: name for name, kind in reversed(case.kinds.items())}
        if case.what != "inference" or not {"butterfly", "standard"} <= name.keys():
            continue
        here = ratio[name["butterfly"]] / ratio[name["standard"]]
        what = f"inference, butterfly over standard MoE, {case.of}"
        yield Beside(f"{name['butterfly']}, {name['standard']}", Comparison(
            VIT, "section 5", what, "3 x slower; with a Triton kernel near the same", here, less(here, 1), "x", SPEED
        ))  # fmt: skip
