"""Augmentation, and the batches that a trainer gets."""

from __future__ import annotations

import gc
import itertools
import math
import threading
import time

import numpy as np
import pytest
import torch
from PIL import Image, ImageEnhance, ImageOps
from torch import Tensor

from bfedge.errors import BfedgeError
from bfedge.training.augment import Augmentation, augment, resampled
from bfedge.training.batches import augmented_batches, batches, epoch_generator, prefetched
from bfedge.training.data import DataSet
from bfedge.training.randaugment import COLOUR_OPERATIONS, OPERATIONS, geometry, random_operations, recolour

CLASSES = 5
ALL = Augmentation(affine=0.5, crop=2, flip=True, randaugment=2, mixup=0.8, cutmix=1.0)
SHAPES = [(6, 8, 8, 3), (7, 5, 12, 1), (5, 9, 6, 2), (1, 4, 4, 3)]


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def noise(*shape: int, seed: int = 0) -> Tensor:
    return torch.randint(0, 256, shape, dtype=torch.uint8, generator=seeded(seed))


def classes_of(images: Tensor) -> Tensor:
    return torch.arange(len(images)) % CLASSES


def augmented(
    images: Tensor, settings: Augmentation, seed: int = 0, part: slice = slice(None)
) -> tuple[Tensor, Tensor]:
    return augment(images, classes_of(images), CLASSES, settings, seeded(seed), part)


# ---------------------------------------------------------------- all of it


def test_nothing_is_changed_by_default() -> None:
    images = noise(5, 8, 6, 3)
    changed, targets = augmented(images, Augmentation())
    assert changed.dtype == torch.float32
    assert torch.equal(changed, images.float())
    assert torch.equal(targets, classes_of(images))


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize(
    "settings",
    [
        Augmentation(affine=1.0),
        Augmentation(crop=3, flip=True),
        Augmentation(randaugment=3, randaugment_magnitude=10),
        Augmentation(mixup=0.2),
        Augmentation(cutmix=1.0),
        ALL,
    ],
    ids=["affine", "crop and flip", "randaugment", "mixup", "cutmix", "all"],
)
def test_shape_type_range_and_repeatability(shape: tuple[int, ...], settings: Augmentation) -> None:
    images = noise(*shape)
    before = images.clone()
    changed, targets = augmented(images, settings)
    assert changed.shape == images.shape
    assert changed.dtype == torch.float32
    assert 0 <= float(changed.min()) <= float(changed.max()) <= 255
    assert torch.equal(images, before)
    again, again_targets = augmented(images, settings)
    assert torch.equal(changed, again)
    assert torch.equal(targets, again_targets)
    if len(images) > 1:
        assert not torch.equal(changed, images.float())
        assert not torch.equal(changed, augmented(images, settings, seed=1)[0])


@pytest.mark.parametrize("settings", [ALL, Augmentation(crop=2, flip=True), Augmentation(affine=0.3, mixup=0.4)])
@pytest.mark.parametrize("part", [(0, 4), (4, 8), (8, 13), (3, 6), (5, 6), (12, 13), (7, 7), (0, 13)])
def test_a_part_is_the_same_rows_of_the_whole(settings: Augmentation, part: tuple[int, int]) -> None:
    """So a batch that is divided among processes is augmented as in one; even where a part cuts a pair in two."""
    images = noise(13, 8, 8, 3)
    whole, whole_targets = augmented(images, settings)
    generator = seeded()
    rows, targets = augment(images, classes_of(images), CLASSES, settings, generator, slice(*part))
    assert torch.equal(rows, whole[slice(*part)])
    assert torch.equal(targets, whole_targets[slice(*part)])
    full = seeded()
    augment(images, classes_of(images), CLASSES, settings, full)
    assert torch.equal(generator.get_state(), full.get_state()), "the next batch starts alike everywhere"


def test_every_image_is_augmented_in_its_own_way() -> None:
    images = noise(1, 8, 8, 3).expand(32, -1, -1, -1)
    for settings in (Augmentation(affine=1.0), Augmentation(crop=3, flip=True), Augmentation(randaugment=3)):
        changed, _ = augmented(images, settings)
        assert len({image.numpy().tobytes() for image in changed}) > 20


# ---------------------------------------------------------------- crop, flip, affine


def test_a_flip_mirrors_exactly_and_half_of_the_images() -> None:
    images = noise(400, 3, 4, 3)
    changed, _ = augmented(images, Augmentation(flip=True))
    mirrored = (changed == images.flip(2)).flatten(1).all(1)
    same = (changed == images).flatten(1).all(1)
    assert bool((mirrored ^ same).all())
    assert 150 < int(mirrored.sum()) < 250


def test_a_crop_shifts_by_whole_pixels_and_brings_in_black() -> None:
    height, width, most = 6, 9, 2
    image = (noise(1, height, width, 3) | 1).expand(600, -1, -1, -1)  # nothing in it is black
    changed, _ = augmented(image, Augmentation(crop=most))
    padded = torch.zeros(height + 2 * most, width + 2 * most, 3)
    padded[most:-most, most:-most] = image[0].float()
    places = list(itertools.product(range(2 * most + 1), repeat=2))
    windows = torch.stack([padded[y : y + height, x : x + width] for y, x in places])
    found = (changed[:, None] == windows[None]).flatten(2).all(2)
    assert bool((found.sum(1) == 1).all())
    assert int(found.sum(0).min()) >= 8, "all 25 shifts occur, 24 times each on average"
    assert int(found.sum(0).max()) <= 50


def test_a_crop_that_leaves_nothing_is_refused() -> None:
    with pytest.raises(BfedgeError, match=r"augmentation.crop is 4; it must be less than the image's 4 x 8"):
        augmented(noise(2, 4, 8, 1), Augmentation(crop=4))


def test_a_small_affine_change_changes_little() -> None:
    y, x = torch.meshgrid(torch.arange(16.0), torch.arange(16.0), indexing="ij")
    image = (100 * torch.sin(x / 4) + 20 * torch.cos(y / 5) + 120)[None, :, :, None].to(torch.uint8)
    changed, _ = augmented(image, Augmentation(affine=0.02))
    assert 0 < float((changed - image)[:, 2:-2, 2:-2].abs().max()) < 4


def test_an_affine_change_turns_circles_into_circles() -> None:
    """In pixels, whatever the image's proportions are: a disc stays as wide as high."""
    y, x = torch.meshgrid(torch.arange(40.0), torch.arange(80.0), indexing="ij")
    disc = (((x - 39.5) ** 2 + (y - 19.5) ** 2 < 100) * 255).to(torch.uint8)[None, :, :, None].expand(20, -1, -1, -1)
    changed, _ = augmented(disc, Augmentation(affine=1.0))
    weight = changed[..., 0] / changed.sum((1, 2, 3))[:, None, None]
    centre_x, centre_y = (weight * x).sum((1, 2)), (weight * y).sum((1, 2))
    spread_x = (weight * (x - centre_x[:, None, None]) ** 2).sum((1, 2)).sqrt()
    spread_y = (weight * (y - centre_y[:, None, None]) ** 2).sum((1, 2)).sqrt()
    assert torch.allclose(spread_x, spread_y, rtol=0.01)
    assert float(spread_x.std()) > 0.1, "they are scaled"
    assert 1 < float((centre_x - 39.5).abs().max()) <= 4.5, "and shifted by up to a twentieth"


# ---------------------------------------------------------------- mixup and cutmix


def test_mixup_mixes_neighbours_and_their_targets_alike() -> None:
    images = noise(40, 4, 4, 3)
    changed, targets = augmented(images, Augmentation(mixup=1.0))
    assert targets.shape == (40, CLASSES)
    assert torch.allclose(targets.sum(1), torch.ones(40))
    own = torch.arange(40)
    kept = targets[own, classes_of(images)]  # neighbours have different classes
    assert torch.allclose(kept + targets[own, classes_of(images)[own ^ 1]], torch.ones(40))
    share = kept[:, None, None, None]
    assert torch.allclose(changed, share * images + (1 - share) * images[own ^ 1], atol=0.01)
    assert torch.allclose(kept[::2], kept[1::2]), "both of a pair keep the same share"
    assert len(set(kept[::2].tolist())) == 20


def test_cutmix_puts_a_box_of_the_neighbour_into_an_image() -> None:
    height, width = 12, 18
    images = torch.cat([torch.full((1, height, width, 1), value, dtype=torch.uint8) for value in (10, 200)] * 50)
    changed, targets = augmented(images, Augmentation(cutmix=1.0))
    own = torch.arange(100)
    foreign = changed == images[own ^ 1]
    assert bool((foreign | (changed == images)).all()), "no pixel is blended"
    share = foreign.float().mean((1, 2, 3))
    assert torch.allclose(targets[own, classes_of(images)[own ^ 1]], share, atol=1e-6)
    assert torch.allclose(targets.sum(1), torch.ones(100))
    for mask in foreign[..., 0]:
        rows, columns = mask.any(1).nonzero()[:, 0], mask.any(0).nonzero()[:, 0]
        if len(rows):
            box = mask[rows.min() : rows.max() + 1, columns.min() : columns.max() + 1]
            assert bool(box.all()), "it is one whole box"
    assert float(share.min()) < 0.1
    assert float(share.max()) > 0.6


@pytest.mark.parametrize("alpha", [0.2, 1.0, 4.0])
def test_the_shares_are_of_the_beta_distribution(alpha: float) -> None:
    """Its mean is 1/2 and its variance 1 / (4 (2 alpha + 1))."""
    images = noise(4000, 1, 1, 1)
    _, targets = augmented(images, Augmentation(mixup=alpha))
    kept = targets[torch.arange(4000), classes_of(images)][::2]
    assert float(kept.mean()) == pytest.approx(0.5, abs=0.04)
    assert float(kept.var()) == pytest.approx(1 / (4 * (2 * alpha + 1)), rel=0.12)


def test_with_both_on_each_pair_takes_one_of_them() -> None:
    images = torch.tensor([10, 200] * 300, dtype=torch.uint8)[:, None, None, None].expand(-1, 8, 8, 1)
    changed, _ = augmented(images, Augmentation(mixup=1.0, cutmix=1.0))
    blended = ((changed != 10) & (changed != 200)).flatten(1)
    is_mixup = blended.all(1)
    assert bool((blended.any(1) == is_mixup).all())
    assert torch.equal(is_mixup[::2], is_mixup[1::2])
    assert 110 < int(is_mixup[::2].sum()) < 190


def test_a_last_image_without_a_neighbour_stays() -> None:
    images = noise(5, 4, 4, 1)
    changed, targets = augmented(images, Augmentation(mixup=1.0, cutmix=1.0))
    assert torch.equal(changed[4], images[4].float())
    assert targets[4].tolist() == [0, 0, 0, 0, 1]
    assert not torch.equal(changed[:4], images[:4].float())


# ---------------------------------------------------------------- RandAugment

UNCHANGED_AT_0 = [name for name in OPERATIONS if name not in ("auto_contrast", "equalise")]


def operated(images: Tensor, name: str, amount: float) -> Tensor:
    """One operation on float images, through the same path as augment's."""
    chosen = torch.full((len(images), 1), OPERATIONS.index(name))
    amounts = torch.full((len(images), 1), amount)
    return recolour(resampled(images, geometry(chosen, amounts, *images.shape[1:3])), chosen, amounts)


def test_the_operations_are_the_papers_fourteen() -> None:
    assert len(set(OPERATIONS)) == 14
    assert set(COLOUR_OPERATIONS) < set(OPERATIONS)


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("name", UNCHANGED_AT_0)
def test_magnitude_0_changes_nothing(name: str, channels: int) -> None:
    images = noise(3, 8, 10, channels).float()
    assert torch.equal(operated(images, name, 0.0), images)


@pytest.mark.parametrize("name", [name for name in OPERATIONS if name != "identity"])
def test_every_operation_does_something_to_its_images_only(name: str) -> None:
    images = noise(4, 8, 8, 3).float() * 0.7 + 20
    chosen = torch.tensor([[OPERATIONS.index("identity")], [OPERATIONS.index(name)]] * 2)
    amounts = torch.full((4, 1), 0.8)
    changed = torch.where(
        torch.tensor([False, True, False, True])[:, None, None, None], operated(images, name, 0.8), images
    )
    assert not torch.equal(changed[1], images[1])
    if name in COLOUR_OPERATIONS:
        assert torch.equal(recolour(images, chosen, amounts), changed)
    else:
        matrices = geometry(chosen, amounts, 8, 8)
        assert torch.equal(matrices[0], torch.eye(3))
        assert not torch.equal(matrices[1], torch.eye(3))


def test_operations_and_signs_are_drawn_evenly() -> None:
    chosen, amounts = random_operations(7000, 2, 5.0, seeded())
    counts = torch.bincount(chosen.flatten(), minlength=14)
    assert int(counts.min()) > 880
    assert int(counts.max()) < 1120
    assert set(amounts.flatten().tolist()) == {0.5, -0.5}
    assert abs(float(amounts.mean())) < 0.02


def test_geometry() -> None:
    y, x = torch.meshgrid(torch.arange(20), torch.arange(30), indexing="ij")
    image = torch.stack([x * 8, y * 8, torch.full_like(x, 200)], -1)[None].float()
    moved = operated(image, "translate_x", 4 / (0.45 * 30))  # 4 pixels to the left
    assert torch.allclose(moved[:, :, :-4], image[:, :, 4:], atol=0.01)
    assert float(moved[:, :, -4:].abs().max()) < 0.01
    moved = operated(image, "translate_y", -5 / (0.45 * 20))
    assert torch.allclose(moved[:, 5:], image[:, :-5], atol=0.01)
    turned = operated(image, "rotate", 1.0)[0, 10, 15]  # near the middle, which is at 9.5 and 14.5
    cosine, sine = math.cos(math.pi / 6), math.sin(math.pi / 6)
    assert float(turned[0]) == pytest.approx(8 * (14.5 + 0.5 * cosine - 0.5 * sine), abs=0.05)
    assert float(turned[1]) == pytest.approx(8 * (9.5 + 0.5 * cosine + 0.5 * sine), abs=0.05)
    sheared = operated(image, "shear_x", 1.0)[0, :, 15, 0]
    assert float(sheared[15] - sheared[10]) == pytest.approx(5 * 0.3 * 8, abs=0.05)
    sheared = operated(image, "shear_y", 1.0)[0, 10, :, 1]
    assert float(sheared[20] - sheared[12]) == pytest.approx(8 * 0.3 * 8, abs=0.05)


def test_colours() -> None:
    image = torch.tensor([[[0.0, 100, 200], [40, 80, 120]], [[10, 10, 10], [255, 255, 255]]])[None]
    assert operated(image, "brightness", -1.0)[0, 0, 1].tolist() == pytest.approx([4, 8, 12], abs=1e-3)
    assert operated(image, "brightness", 1.0)[0, 0, 1].tolist() == pytest.approx([76, 152, 228], abs=1e-3)
    grey = 0.299 * 40 + 0.587 * 80 + 0.114 * 120
    pale = [grey + 0.1 * (value - grey) for value in (40, 80, 120)]
    assert operated(image, "saturation", -1.0)[0, 0, 1].tolist() == pytest.approx(pale, abs=1e-3)
    assert operated(image, "saturation", -1.0)[0, 1, 0].tolist() == pytest.approx([10, 10, 10], abs=1e-3)
    flat = operated(image, "contrast", -1.0)
    assert float(flat.std()) == pytest.approx(0.1 * float(image.std()), rel=0.05)
    assert operated(image, "solarise", 0.5)[0, 0].tolist() == [[0, 100, 55], [40, 80, 120]]
    assert torch.equal(operated(image, "solarise", 1.0), 255 - image)
    assert operated(image, "posterise", 1.0)[0, 0].tolist() == [[0, 96, 192], [32, 80, 112]]
    assert operated(image, "posterise", 0.5)[0, 0].tolist() == [[0, 100, 200], [40, 80, 120]]
    stretched = operated(image * 0.5 + 30, "auto_contrast", 0.0)
    assert stretched.amin((1, 2)).tolist() == [[0, 0, 0]]
    assert stretched.amax((1, 2))[0].tolist() == pytest.approx([255, 255, 255])
    plain = torch.full((1, 3, 3, 3), 77.0)
    for name in ("auto_contrast", "equalise", "sharpness", "contrast", "saturation"):
        assert torch.allclose(operated(plain, name, 0.7), plain), name


def test_sharpness_is_against_the_mean_around_a_pixel() -> None:
    image = torch.zeros(1, 5, 5, 1)
    image[0, 2, 2] = 130
    soft = operated(image, "sharpness", -1.0)[0, :, :, 0]
    assert float(soft[2, 2]) == pytest.approx(130 - 0.9 * (130 - 50), abs=0.01)
    assert float(soft[1, 2]) == pytest.approx(0.9 * 10, abs=0.01)
    assert float(soft[0].abs().max()) == 0


def test_equalising_is_pillows() -> None:
    generator = np.random.default_rng(0)
    dark = (generator.random((3, 32, 32, 3)) ** 3 * 180).astype(np.uint8)
    changed = operated(torch.from_numpy(dark).float(), "equalise", 0.0)
    for image, result in zip(dark, changed, strict=True):
        assert np.array_equal(np.asarray(ImageOps.equalize(Image.fromarray(image))), result.numpy())


def test_colours_are_pillows() -> None:
    """Which rounds every step; where this does not, they differ by less than 1.5."""
    image = noise(1, 16, 16, 3)
    opened = Image.fromarray(image[0].numpy())
    enhancers = {
        "brightness": ImageEnhance.Brightness,
        "contrast": ImageEnhance.Contrast,
        "saturation": ImageEnhance.Color,
        "sharpness": ImageEnhance.Sharpness,
    }
    for (name, enhancer), amount in itertools.product(enhancers.items(), (-0.9, 0.4)):
        expected = np.asarray(enhancer(opened).enhance(1 + 0.9 * amount)).astype(float)
        assert np.abs(operated(image.float(), name, amount)[0].numpy() - expected).max() < 1.5, name
    assert np.array_equal(
        operated(image.float(), "posterise", 0.75)[0].numpy(), np.asarray(ImageOps.posterize(opened, 5))
    )
    assert np.array_equal(
        operated(image.float(), "solarise", 0.25)[0].numpy(), np.asarray(ImageOps.solarize(opened, 192))
    )


# ---------------------------------------------------------------- batches


def numbered(count: int) -> DataSet:
    """Image n is n in every pixel, and its class n % CLASSES."""
    images = np.arange(count, dtype=np.uint8)[:, None, None, None].repeat(4, 1).repeat(4, 2)
    targets = np.arange(count) % CLASSES
    return DataSet(images, targets, images[:2], targets[:2], tuple("abcde"))


def numbers(batch: tuple[Tensor, Tensor]) -> list[int]:
    return batch[0][:, 0, 0, 0].int().tolist()


def test_an_epoch_has_every_image_once_and_whole_batches_only() -> None:
    epoch = list(batches(numbered(53), 10, Augmentation(), 0, 1))
    assert [len(images) for images, _ in epoch] == [10] * 5
    seen = [number for batch in epoch for number in numbers(batch)]
    assert len(set(seen)) == 50
    assert seen != sorted(seen)
    for batch in epoch:
        assert batch[1].tolist() == [number % CLASSES for number in numbers(batch)]


def test_an_epoch_depends_on_seed_and_number_alone() -> None:
    def order(seed: int, epoch: int) -> list[int]:
        return [n for batch in batches(numbered(40), 8, Augmentation(), seed, epoch) for n in numbers(batch)]

    first = order(0, 1)
    torch.manual_seed(7)
    assert order(0, 1) == first
    others = [order(0, 2), order(1, 1), order(-1, 1), order(2**63 - 1, 1), order(-(2**63), 1)]
    assert all(other != first for other in others)
    assert len({tuple(other) for other in others}) == len(others)


def test_parts_of_batches_are_those_of_whole_ones() -> None:
    data = numbered(64)
    whole = list(batches(data, 16, ALL, 3, 2))
    halves = [list(batches(data, 16, ALL, 3, 2, part)) for part in (slice(0, 8), slice(8, 16))]
    for (images, targets), first, second in zip(whole, *halves, strict=True):
        assert torch.equal(images, torch.cat([first[0], second[0]]))
        assert torch.equal(targets, torch.cat([first[1], second[1]]))


def made_by(numbers_seen: list[int], count: int, problem: Exception | None = None):
    for number in range(count):
        numbers_seen.append(number)
        yield torch.tensor([number]), torch.tensor([threading.get_ident()])
    if problem:
        raise problem


def test_batches_are_made_ahead_by_a_thread() -> None:
    made: list[int] = []
    stream = prefetched(made_by(made, 10))
    assert not made, "nothing is made before it is wanted"
    first = next(stream)
    assert int(first[1]) != threading.get_ident()
    deadline = time.monotonic() + 10
    while len(made) < 3 and time.monotonic() < deadline:
        time.sleep(0.001)
    time.sleep(0.02)
    assert made == [0, 1, 2], "two ahead and no more"
    assert [int(batch[0]) for batch in stream] == list(range(1, 10))


def test_what_the_thread_raises_reaches_the_caller_in_its_turn() -> None:
    stream = prefetched(made_by([], 3, BfedgeError("spoilt")))
    assert [int(next(stream)[0]) for _ in range(3)] == [0, 1, 2]
    with pytest.raises(BfedgeError, match="spoilt"):
        next(stream)
    with pytest.raises(BfedgeError, match=r"augmentation.crop is 9"):
        next(batches(numbered(20), 4, Augmentation(crop=9), 0, 1))


def prefetching_threads() -> int:
    return sum(thread.name.startswith("batches") for thread in threading.enumerate())


@pytest.mark.parametrize("taken", [0, 1, 3])
def test_the_thread_ends_with_the_iterator(taken: int) -> None:
    stream = batches(numbered(60), 4, ALL, 0, 1)
    for _ in range(taken):
        next(stream)
    assert prefetching_threads() == (taken > 0)
    del stream
    gc.collect()
    assert prefetching_threads() == 0


def test_the_thread_ends_with_a_trainer_that_fails() -> None:
    def train() -> None:
        for number, _ in enumerate(batches(numbered(60), 4, ALL, 0, 1)):
            if number == 2:
                raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train()
    gc.collect()
    assert prefetching_threads() == 0


def test_the_thread_leaves_the_trainers_threads_alone() -> None:
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(2)
        assert len(list(batches(numbered(60), 4, ALL, 0, 1))) == 15
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)


def test_without_a_thread_the_batches_are_the_same() -> None:
    """As on a GPU, where they are made on the device."""
    plain = augmented_batches(numbered(40), 8, ALL, epoch_generator(5, 6), slice(None), torch.device("cpu"))
    for (images, targets), (ahead, ahead_targets) in zip(plain, batches(numbered(40), 8, ALL, 5, 6), strict=True):
        assert torch.equal(images, ahead)
        assert torch.equal(targets, ahead_targets)
