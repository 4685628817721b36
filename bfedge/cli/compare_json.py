"""The comparison as plain values, for `bfedge compare --json`."""

from __future__ import annotations

import dataclasses
from typing import Any

from bfedge.bench.run import plain
from bfedge.cli.paper import layer_as_dict
from bfedge.compare.accuracy import Accuracy
from bfedge.compare.routing import LayerRouting
from bfedge.compare.run import Comparison
from bfedge.compare.study import Study
from bfedge.compare.training_record import as_toml

SHAPE = (
    *("feed_forward", "image_height", "image_width", "channels", "patch_size", "classes", "d_model", "d_ff", "layers"),
    *("heads", "rotation_layers", "pooling", "projection_weights"),
)


def comparison_as_dict(comparison: Comparison, origin: dict[str, Any]) -> dict[str, Any]:
    return {
        **origin,
        "models": [model_as_dict(found) for found in comparison.studies],
        "times": [plain(timed) for timed in comparison.times],
        "paper": [{"model": row.model, **dataclasses.asdict(row.comparison)} for row in comparison.beside_papers],
    }


def model_as_dict(found: Study) -> dict[str, Any]:
    subject, experts = found.subject, found.experts
    config = subject.config
    routed = config.feed_forward != "dense"
    return {
        "name": subject.name,
        "checkpoint": str(subject.path),
        "config": {
            **{name: getattr(config, name) for name in SHAPE},
            "experts": config.experts if routed else None,
            "top_k": config.top_k if routed else None,
        },
        "sizes": dataclasses.asdict(found.sizes),
        "training": training_as_dict(found),
        "accuracy": {
            "in_float": accuracy_as_dict(found.in_float),
            "deployed": accuracy_as_dict(found.deployed),
            "deployed_by": found.deployed_by,
        },
        "rounding": [
            {"name": r.name, "error": r.error, "layer_errors": r.layer_errors, "accuracy": accuracy_as_dict(r.accuracy)}
            for r in found.rounding
        ],
        "experts": [layer_as_dict(layer) for layer in experts.layers] if experts else [],
        "routing": [routing_as_dict(layer) for layer in found.routing],
    }


def training_as_dict(found: Study) -> dict[str, Any] | None:
    record = found.subject.training
    if record is None:
        return None
    return {
        "recipe": as_toml(record.values),
        "seconds": record.seconds,
        "images_per_second": record.images_per_second,
        "epochs": [dataclasses.asdict(epoch) for epoch in record.epochs],
    }


def accuracy_as_dict(accuracy: Accuracy) -> dict[str, Any]:
    return {**dataclasses.asdict(accuracy), "standard_error": accuracy.standard_error}


def routing_as_dict(layer: LayerRouting) -> dict[str, Any]:
    values = {**dataclasses.asdict(layer), "relative_smoothness": layer.relative_smoothness}
    return {**values, "load_balance": layer.load_balance}
