"""What the papers say about memory, recomputed from packed files of their models' shapes. MB are 1e6 bytes."""

from __future__ import annotations

import functools
import itertools
import math

from bfedge.bench.random_models import cifar_shape
from bfedge.config import config_from_dict
from bfedge.lowered.model import Shape
from bfedge.measure.claims import MOE, VIT, Claim
from bfedge.measure.expert_memory import (
    FP16_ANGLE,
    FP32_ANGLE,
    ExpertMemory,
    expert_memory,
    pack_random,
    with_full_rotations,
)
from bfedge.packed.layout import Kind
from bfedge.packed.outline import outline

MB = 1e6
MIB = 2**20

TABLE_2 = {
    2: ("29.36", "0.434", "68x"),
    4: ("58.72", "0.505", "116x"),
    8: ("117.44", "0.649", "181x"),
    16: ("234.88", "0.935", "251x"),
    32: ("469.76", "1.509", "311x"),
    64: ("939.52", "2.656", "354x"),
}
"""As printed: experts, and MB of standard experts, MB of butterfly experts, compression"""
DENSE_MB = "117.44 MB"


@functools.cache
def packed(experts: int) -> ExpertMemory:
    """Of ButterflyViT's model for CIFAR-100, really packed."""
    return expert_memory(pack_random(cifar_shape(experts)))


@functools.cache
def packed_moe(experts: int) -> ExpertMemory:
    """Of one layer of ButterflyMoE, d_model 512 and d_ff 2048, really packed."""
    return expert_memory(pack_random(moe_shape(experts)))


def moe_shape(experts: int) -> Shape:
    return with_full_rotations(cifar_shape(experts, layers=1, d_model=512, d_ff=2048))


def table_2() -> list[Claim]:
    claims = []
    for experts, (standard, butterfly, compression) in TABLE_2.items():
        memory = packed(experts)
        where, first = "Table 2", experts == 2
        claims += [
            Claim(VIT, where, f"{experts} experts, StandardMoE", f"{standard} MB", memory.standard_bytes / MB,
                  "all 7 layers, 2 float32 matrices an expert" if first else ""),
            Claim(VIT, where, f"{experts} experts, ButterflyViT", f"{butterfly} MB", memory.counted(FP32_ANGLE) / MB,
                  "all 7 layers, 1.58 bits a trit, 4 bytes an angle" if first else ""),
            Claim(VIT, where, f"{experts} experts, compression", compression, memory.compression(FP32_ANGLE)),
        ]  # fmt: skip
    return claims


def table_1() -> list[Claim]:
    memory = packed(8)
    dense = memory.standard_bytes / memory.experts
    where = "Table 1"
    return [
        Claim(VIT, where, "memory, ButterflyViT", "0.64 MB", memory.counted(FP32_ANGLE) / MB),
        Claim(VIT, where, "memory, StandardMoE", "117.44 MB", memory.standard_bytes / MB),
        Claim(VIT, where, "compression", "181x", memory.compression(FP32_ANGLE)),
        Claim(VIT, where, "memory, dense feed-forward", DENSE_MB, dense / MB,
              "a dense model has one feed-forward a layer, not 8; the figure is StandardMoE's", must_match=False),
        *parameters(),
    ]  # fmt: skip


def parameters() -> list[Claim]:
    """Of our own models, counted by torch without making them."""
    butterfly, standard, dense = (parameter_count(kind) for kind in ("butterfly", "standard", "dense"))
    without = "torch is not installed" if butterfly is None else ""
    shape = cifar_shape(8)
    biases = shape.layers * shape.experts * (shape.d_ff + shape.d_model)
    why = without or f"ours have no bias in the experts; with them it would be {((standard or 0) + biases) / 1e6:.2f} M"
    where = "Table 1"
    return [
        Claim(VIT, where, "parameters, ButterflyViT", "5.66 M", in_millions(butterfly), without, not without),
        Claim(VIT, where, "parameters, StandardMoE", "31.35 M", in_millions(standard), why, False, ours=True),
        Claim(VIT, where, "parameters, dense", "5.58 M", in_millions(dense), without, not without),
    ]


def in_millions(count: int | None) -> float | None:
    return None if count is None else count / 1e6


def parameter_count(feed_forward: str) -> int | None:
    """None without torch."""
    try:
        import torch

        from bfedge.model.vit import ViT
    except ImportError:
        return None
    names = ("image_height", "image_width", "channels", "patch_size", "classes", "d_model", "d_ff", "layers", "heads")
    shape = cifar_shape(8)
    values = {name: getattr(shape, name) for name in (*names, "experts", "top_k", "pooling")}
    with torch.device("meta"):
        model = ViT(config_from_dict({**values, "feed_forward": feed_forward}))
    return sum(parameter.numel() for parameter in model.parameters())


def text() -> list[Claim]:
    """Figures outside the tables that Table 2 decides."""
    few, many = packed(8), packed(64)
    shape = cifar_shape(8)
    layer = many.counted(FP32_ANGLE) / many.layers
    equation_2 = 4 * shape.d_ff * shape.d_model
    two_bits = many.standard_bytes / many.layers * 2 / 32
    return [
        Claim(VIT, "abstract", "compression at 64 experts", "354x", many.compression(FP32_ANGLE)),
        Claim(VIT, "section 3.3", "compression at 8 experts", "181x", few.compression(FP32_ANGLE)),
        Claim(VIT, "section 5", "compression at 64 experts", "more than 350x", many.compression(FP32_ANGLE),
              relation="above"),
        Claim(VIT, "section 4.2", "ButterflyViT at 64 experts", "2.65 MB", many.counted(FP32_ANGLE) / MB),
        Claim(VIT, "section 1", "StandardMoE at 64 experts", "939 MB", many.standard_bytes / MB),
        Claim(VIT, "section 1", "one layer of StandardMoE, 64 experts", "939 MB",
              many.standard_bytes / many.layers / MB, "939 MB are all 7 layers", must_match=False),
        Claim(VIT, "section 1", "one layer of it at 2 bits", "hundreds of MB", two_bits / MB,
              "all 7 layers at 2 bits are below 100 MB, too", must_match=False, between=(200, 999)),
        Claim(VIT, "section 1", "ButterflyViT at 64 experts", "0.379 MB", many.counted(FP32_ANGLE) / MB,
              "Table 2 says 2.656 MB; this is one layer, beside the 939 MB of 7", must_match=False),
        Claim(VIT, "section 1", "one layer of ButterflyViT, 64 experts", "0.379 MB", layer / MB),
        Claim(VIT, "section 3.1", "StandardMoE at 8 experts", "117 MB", few.standard_bytes / MB),
        Claim(VIT, "section 3.1", "StandardMoE at 64 experts", "940 MB", many.standard_bytes / MB),
        Claim(VIT, "equation 2", "N d_ff d_model 4 bytes, 8 experts", "117 MB", few.experts * equation_2 / MB,
              "the equation has one matrix and one layer; the figure has 2 and 7", must_match=False),
    ]  # fmt: skip


def stored() -> list[Claim]:
    """What the text says of how trits and angles are stored, and what a packed file stores."""
    memory = packed(64)
    file = pack_random(cifar_shape(8))
    theta = file.section(Kind.theta, 0)
    three = expert_memory(pack_random(cifar_shape(64), "trits3"))
    where = "section 3.8"
    return [
        Claim(VIT, where, "bytes an angle (FP16)", "2", memory.angle_bytes / memory.angles, "as in our files"),
        Claim(VIT, where, "64 experts with FP16 angles", "2.656 MB", memory.counted(FP16_ANGLE) / MB,
              "Table 2 counts 4 bytes an angle", must_match=False),
        Claim(VIT, where, "compression at 64 with FP16 angles", "354x", memory.compression(FP16_ANGLE),
              "better than claimed: Table 2 counts 4 bytes an angle", must_match=False),
        Claim(VIT, "section 3.4.1", "angles of an input rotation, d 256", "256",
              theta.rows * theta.columns // file.shape.experts),
        Claim(VIT, "section 1", "bits of information in a trit", "1.58", math.log2(3)),
        Claim(VIT, "section 1", "bits a stored trit, 5 in a byte", "1.58", 8 * three.trit_bytes / three.trits,
              "a row of 256 trits takes 52 bytes", must_match=False, ours=True),
        Claim(MOE, "method", "bits a stored trit, 4 in a byte", "2 bits", 8 * memory.trit_bytes / memory.trits),
    ]  # fmt: skip


def limits() -> list[Claim]:
    """Propositions 1 and 2: equation 11, and the ratio for ever more experts (equation 12)."""
    memory = packed(64)
    equation_11 = memory.counted(4 * FP16_ANGLE)
    two_matrices = memory.standard_bytes / memory.experts
    angles = memory.angles / memory.experts
    ratios = [expert_memory(outline(cifar_shape(2**n))).compression(FP32_ANGLE) for n in range(1, 13)]
    growth = 100 * min(after / before - 1 for before, after in itertools.pairwise(ratios))
    where = "equation 12"
    return [
        Claim(VIT, "equation 11", "all 7 layers, 64 experts, to the letter", "2.656 MB", equation_11 / MB,
              "8 bytes an angle: a factor 4 too many for FP16, 2 for Table 2", must_match=False),
        Claim(VIT, "equation 11", "one layer of it", "0.379 MB", equation_11 / memory.layers / MB,
              "the same factors", must_match=False),
        Claim(VIT, where, "262,144 / 2,560", "409x", two_matrices / 2 / (angles * 4 * FP16_ANGLE),
              "the division is wrong: its fraction is a quarter of the figure", must_match=False),
        Claim(VIT, where, "limit as Table 2 counts", "409x", two_matrices / (angles * FP32_ANGLE),
              "2 matrices, 4 bytes an angle"),
        Claim(VIT, where, "limit with FP16 angles", "409x", two_matrices / (angles * FP16_ANGLE),
              "2 matrices, 2 bytes an angle", must_match=False),
        Claim(VIT, "proposition 2", "ratio at 64, bounded below by 409", "at least 409x",
              memory.compression(FP32_ANGLE), "it grows towards the limit: an upper bound, not a lower one",
              must_match=False, relation="above"),
        Claim(VIT, "proposition 2", "growth of the ratio when N doubles", "more than 0%", growth,
              "the least of 2 to 4,096 experts", relation="above"),
    ]  # fmt: skip


def butterfly_moe() -> list[Claim]:
    """One layer, d_model 512, d_ff 2048, rotations log2 of the width deep, and one float32 matrix a standard expert."""
    some, many = packed_moe(64), packed_moe(256)
    one_matrix = "one float32 matrix an expert; ButterflyViT counts two"
    where = "summary"
    return [
        Claim(MOE, where, "64 experts", "1.9 MB", some.counted(FP16_ANGLE) / MB, "1.58 bits a trit, 2 bytes an angle"),
        Claim(MOE, where, "64 standard experts", "256 MB", some.standard_bytes / 2 / MIB,
              f"these MB are 2^20 bytes; {one_matrix}"),
        Claim(MOE, where, "compression at 256 experts", "150x", many.standard_bytes / 2 / many.counted(FP16_ANGLE),
              one_matrix),
    ]  # fmt: skip
