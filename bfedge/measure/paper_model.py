"""What the papers say of the experts of trained models, beside the analysis of one that the user has."""

from __future__ import annotations

from dataclasses import dataclass

from bfedge.measure.claims import MOE, VIT
from bfedge.measure.experts import ExpertAnalysis

OTHER_MODEL = "the paper's has 7 layers, d_model 256, 8 experts, and was trained for 50 epochs on CIFAR-100"
ERRORS = (
    "||Q(W) x - W x||^2 / ||W x||^2 over tokens of the images: W_base in the rotated basis against each expert's "
    "matrix written out and made ternary; the text at hand gives no formula"
)


@dataclass(frozen=True)
class Comparison:
    paper: str
    where: str
    what: str
    paper_says: str
    here: float | None
    """Mean over layers; None if it is not defined for this model, or needs what it does not have"""
    difference: float | None
    """From what the paper says, or from its nearest end; None where it gives no figure"""
    unit: str
    why: str


def compare(found: ExpertAnalysis, standard: bool) -> list[Comparison]:
    """`standard`: the model has StandardMoE's experts."""
    printed = 0.10 if standard else 0.29
    similarity = found.mean(lambda layer: layer.mean_similarity)
    before = found.mean(lambda layer: layer.before.peak)
    name = "StandardMoE" if standard else VIT
    rows = [
        Comparison(VIT, "section 4.3", f"similarity of experts, {name}", f"{printed:.2f}", similarity,
                   less(similarity, printed), "", OTHER_MODEL),
        Comparison(VIT, "section 3.5.3", "largest over median activation", "10 to 100x", before,
                   less(before, None if before is None else min(max(before, 10), 100)), "x", "of h = LN(z)"),
    ]  # fmt: skip
    if standard:
        return rows
    after = found.mean(lambda layer: layer.after.peak if layer.after else None)
    kurtosis = found.mean(lambda layer: layer.before.kurtosis)
    rotated_kurtosis = found.mean(lambda layer: layer.after.kurtosis if layer.after else None)
    saved = found.mean(lambda layer: percent(layer.ternary_error.saved) if layer.ternary_error else None)
    missing = "needs a checkpoint: a packed file does not have the weights before they were made ternary"
    return [
        *rows,
        Comparison(VIT, "section 3.5.3", "the same after the input rotation", "suppressed", after,
                   less(after, before), "x", "of B(theta_i) h; the difference is from before the rotation"),
        Comparison(VIT, "section 3.5.3", "excess kurtosis after the rotation", "suppressed", rotated_kurtosis,
                   less(rotated_kurtosis, kurtosis), "", "the difference is from before the rotation; 0 is normal"),
        Comparison(MOE, "summary", "less ternary error than static", "97%", saved, less(saved, 97), "%",
                   missing if saved is None else ERRORS),
    ]  # fmt: skip


def percent(share: float | None) -> float | None:
    return None if share is None else 100 * share


def less(value: float | None, other: float | None) -> float | None:
    return None if value is None or other is None else value - other
