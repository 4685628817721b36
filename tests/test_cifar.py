"""CIFAR-10 and CIFAR-100 from archives of the official form, made here; and from archives made to do harm."""

from __future__ import annotations

import gzip
import hashlib
import io
import os
import pickle
import random
import tarfile
import warnings
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bfedge.errors import BfedgeError
from bfedge.training.archive import read_archive
from bfedge.training.cifar import OFFICIAL_PAGE, VERSIONS, Version, load_cifar
from bfedge.training.data import load_data
from bfedge.training.plain_pickle import byte_array, read_plain_pickle
from tests.cifar_files import (
    array_operations,
    make_files,
    make_sample,
    member,
    official,
    pickled,
    unchecked,
    with_sums,
    write_archive,
    write_folder,
)

CIFAR100_PYTHON, CIFAR100_BINARY, CIFAR10_PYTHON, CIFAR10_BINARY = VERSIONS
EACH = 20
"""Images a file"""

# ---------------------------------------------------------------- what is read


@pytest.mark.parametrize("form", ["archive", "plain tar", "folder"])
@pytest.mark.parametrize("version", VERSIONS, ids=lambda v: v.folder)
def test_every_form_gives_the_images_in_their_order(tmp_path: Path, version: Version, form: str) -> None:
    """So the Python and the binary version agree image by image."""
    sample = make_sample(version)
    files = make_files(version, sample)
    versions = with_sums(version, files)
    if form == "folder":
        path = write_folder(tmp_path / "anything", files)
    else:
        path = write_archive(tmp_path / ("x.tar.gz" if form == "archive" else "x.tar"), official(version, files))
    (images, targets), (test_images, test_targets), names = load_cifar(path, versions)
    assert images.dtype == test_images.dtype == np.uint8
    assert targets.dtype == test_targets.dtype == np.int64
    assert images.shape == (EACH * len(version.train), 32, 32, 3)
    assert test_images.shape == (EACH, 32, 32, 3)
    assert names == tuple(sample.names)
    assert targets.tolist() == [number for numbers in sample.classes[:-1] for number in numbers]
    assert test_targets.tolist() == sample.classes[-1]
    everything = np.concatenate([images, test_images])
    for row, image in zip(np.concatenate(sample.rows), everything, strict=True):
        for channel in range(3):  # red, green, blue; each row by row
            assert image[:, :, channel].tobytes() == row[channel * 1024 : (channel + 1) * 1024].tobytes()
    assert sorted(p.name for p in tmp_path.iterdir()) == [path.name], "nothing is unpacked"


def test_the_pickles_made_here_are_what_python_reads() -> None:
    sample = make_sample(CIFAR100_PYTHON)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # numpy moved the function that the files name
        values = pickle.loads(make_files(CIFAR100_PYTHON, sample)["train"], encoding="latin1")
    assert np.array_equal(values["data"], sample.rows[0])
    assert values["fine_labels"] == sample.classes[0]


def test_plain_values_are_read_as_python_writes_them() -> None:
    shared = ["one"]
    values = {"a": [1, -2, 300, 1 << 40, True, None], "b": ("x", [], {}, ()), "é": {"c": [shared, shared]}}
    assert read_plain_pickle(pickle.dumps(values, 2)) == values


def test_an_array_by_columns() -> None:
    by_rows = pickled(np.array([[1, 2, 3], [4, 5, 6]], np.uint8))
    assert byte_array(read_plain_pickle(by_rows)).tolist() == [[1, 2, 3], [4, 5, 6]]
    by_columns = by_rows.replace(b"\x89T", b"\x88T")  # numpy's flag for Fortran's order
    assert byte_array(read_plain_pickle(by_columns)).tolist() == [[1, 3, 5], [2, 4, 6]]


def test_an_official_sub_folder_is_found_and_two_are_one_too_many(tmp_path: Path) -> None:
    files = make_files(CIFAR100_PYTHON, make_sample(CIFAR100_PYTHON))
    write_folder(tmp_path / "cifar-100-python", files)
    with pytest.raises(BfedgeError, match="cifar-100-python`: train has MD5"):
        load_data(str(tmp_path), None, None)
    write_folder(tmp_path / "cifar-10-batches-bin", make_files(CIFAR10_BINARY, make_sample(CIFAR10_BINARY)))
    with pytest.raises(BfedgeError, match=r"more than one data set: cifar-100-python, cifar-10-batches-bin") as caught:
        load_data(str(tmp_path), None, None)
    assert caught.value.hint == f"--data {tmp_path / 'cifar-10-batches-bin'} names one"


def test_a_folder_of_classes_called_train_and_test_is_no_cifar(tmp_path: Path) -> None:
    for part in ("train", "test"):
        (tmp_path / part).mkdir()
    with pytest.raises(BfedgeError, match="class folders"):
        load_data(str(tmp_path), (8, 8), 3)


# ---------------------------------------------------------------- checksums


@pytest.mark.parametrize("version", VERSIONS, ids=lambda v: v.folder)
def test_other_files_than_the_official_ones_are_refused(tmp_path: Path, version: Version) -> None:
    files = make_files(version, make_sample(version))
    path = write_archive(tmp_path / "c.tar.gz", official(version, files))
    with pytest.raises(BfedgeError) as caught:
        load_data(str(path), None, None)
    first = version.train[0]
    kind, found = ("MD5", hashlib.md5) if isinstance(version.target, str) else ("SHA-1", hashlib.sha1)
    assert caught.value.message == (
        f"`{path}`: {first} has {kind} {found(files[first]).hexdigest()}, the official file {version.checksums[first]}"
    )
    assert OFFICIAL_PAGE in (caught.value.hint or "")


@pytest.mark.parametrize("version", VERSIONS, ids=lambda v: v.folder)
def test_one_changed_bit_in_any_file_is_noticed(tmp_path: Path, version: Version) -> None:
    files = make_files(version, make_sample(version))
    versions = with_sums(version, files)
    for name in version.checksums:
        changed = bytearray(files[name])
        changed[len(changed) // 2] ^= 1
        path = write_archive(tmp_path / "c.tar", official(version, {**files, name: bytes(changed)}))
        with pytest.raises(BfedgeError, match=rf"`: {name} has (MD5|SHA-1) "):
            load_cifar(path, versions)


def test_every_file_with_images_has_a_checksum() -> None:
    for version in VERSIONS:
        assert {*version.train, version.test} <= version.checksums.keys() <= set(version.files)


# ---------------------------------------------------------------- archives that are not whole


@pytest.mark.parametrize("version", VERSIONS, ids=lambda v: v.folder)
def test_missing_files_are_named(tmp_path: Path, version: Version) -> None:
    files = make_files(version, make_sample(version))
    for gone in version.files:
        rest = {name: content for name, content in files.items() if name != gone}
        path = write_archive(tmp_path / "c.tar", official(version, rest))
        with pytest.raises(BfedgeError, match=rf"lacks {gone}$") as caught:
            load_cifar(path, with_sums(version, files))
        assert OFFICIAL_PAGE in (caught.value.hint or "")
        assert "--data PATH" in (caught.value.hint or "")


def test_an_archive_of_something_else(tmp_path: Path) -> None:
    path = write_archive(tmp_path / "c.tar.gz", [member("words.txt", b"hello")])
    with pytest.raises(BfedgeError, match="holds neither CIFAR-10 nor CIFAR-100") as caught:
        load_data(str(path), None, None)
    assert OFFICIAL_PAGE in (caught.value.hint or "")


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.FIFOTYPE, tarfile.DIRTYPE, tarfile.CHRTYPE])
def test_links_and_devices_are_not_followed(tmp_path: Path, kind: bytes) -> None:
    """`train` links to a file that exists and to a member of the archive; neither is read through it."""
    files = make_files(CIFAR100_PYTHON, make_sample(CIFAR100_PYTHON))
    (tmp_path / "secret").write_bytes(files["train"])
    for target in (str(tmp_path / "secret"), "cifar-100-python/other"):
        members = [
            member("cifar-100-python/other", files["train"]),
            member("cifar-100-python/train", type=kind, linkname=target),
            *(member(f"cifar-100-python/{name}", files[name]) for name in ("test", "meta")),
        ]
        path = write_archive(tmp_path / "c.tar.gz", members)
        with pytest.raises(BfedgeError, match=r"lacks train$"):
            load_cifar(path, with_sums(CIFAR100_PYTHON, files))


def test_names_that_lead_out_of_the_folder_write_nothing(tmp_path: Path) -> None:
    files = make_files(CIFAR100_PYTHON, make_sample(CIFAR100_PYTHON))
    inside = tmp_path / "a" / "b"
    inside.mkdir(parents=True)
    members = [member(f"../../{name}", content) for name, content in files.items()]
    path = write_archive(inside / "c.tar.gz", [*members, member("/etc/bfedge-test", b"x")])
    load_cifar(path, with_sums(CIFAR100_PYTHON, files))
    assert [str(p.relative_to(tmp_path)) for p in sorted(tmp_path.rglob("*"))] == ["a", "a/b", "a/b/c.tar.gz"]
    assert not Path("/etc/bfedge-test").exists()


def test_a_file_larger_than_any_of_cifar_is_not_read(tmp_path: Path) -> None:
    path = write_archive(tmp_path / "c.tar.gz", [member("cifar-100-python/train", size=200_000_000)])
    with pytest.raises(BfedgeError, match="train has 200,000,000 bytes; at most 167,772,160 are read"):
        load_data(str(path), None, None)


@pytest.mark.parametrize("name", ["cifar-100-python/train", "other"])
@pytest.mark.parametrize("size", [8**11 - 1, 10**12, 10**30])
def test_a_member_that_claims_to_be_enormous(tmp_path: Path, name: str, size: int) -> None:
    """tarfile would pass over one that is not wanted piece by piece, for hours or for ever."""
    path = write_archive(tmp_path / "c.tar.gz", [member(name, size=size), member("test", b"x")])
    with pytest.raises(BfedgeError, match="claims to hold a file of"):
        load_data(str(path), None, None)


def test_headers_of_headers_without_end(tmp_path: Path) -> None:
    content = b"20 comment=endless\n\n"
    members = [member("h", content, type=tarfile.XHDTYPE) for _ in range(3000)]
    path = write_archive(tmp_path / "c.tar.gz", [*members, member("train", b"x")])
    with pytest.raises(BfedgeError, match="cannot read the archive"):
        load_data(str(path), None, None)


@pytest.mark.parametrize("kind", [tarfile.REGTYPE, tarfile.GNUTYPE_LONGNAME, tarfile.XHDTYPE])
def test_an_archive_that_unpacks_to_too_much(tmp_path: Path, kind: bytes) -> None:
    """40 MB of zeros in 40 kB: as members, and as the long name and the extended header of one."""
    count = 80 if kind == tarfile.REGTYPE else 1
    zeros = bytes(40_000_000 // count)
    path = write_archive(tmp_path / "c.tar.gz", [member("other", zeros, type=kind)] * count)
    assert path.stat().st_size < 200_000
    with pytest.raises(BfedgeError, match="unpacks to more than 1,000,000 bytes"):
        read_archive(path, {"train", "test"}, largest_archive=1_000_000)


def test_a_large_file_in_a_folder_is_not_read(tmp_path: Path) -> None:
    path = write_folder(tmp_path / "c", make_files(CIFAR100_PYTHON, make_sample(CIFAR100_PYTHON)))
    os.truncate(path / "train", 10**11)  # sparse: it takes no room on the disk
    with pytest.raises(BfedgeError, match="train has 100,000,000,000 bytes"):
        load_data(str(path), None, None)


@pytest.fixture(scope="module")
def whole() -> tuple[bytes, tuple[Version, ...]]:
    """A small archive, packed, and the versions that take it."""
    sample = make_sample(CIFAR10_BINARY)
    files = make_files(CIFAR10_BINARY, sample)
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as archive:
        for info, content in official(CIFAR10_BINARY, files):
            archive.addfile(info, io.BytesIO(content))
    return buffer.getvalue(), with_sums(CIFAR10_BINARY, files)


@pytest.mark.parametrize("share", [0, 0.0001, 0.2, 0.5, 0.9, 0.999])
@pytest.mark.parametrize("compressed", [True, False])
def test_an_archive_that_is_cut_off(tmp_path: Path, whole, share: float, compressed: bool) -> None:
    packed, versions = whole
    content = packed if compressed else gzip.decompress(packed).rstrip(b"\0")
    (tmp_path / "c").write_bytes(content[: int(len(content) * share)])
    with pytest.raises(BfedgeError) as caught:
        load_cifar(tmp_path / "c", versions)
    assert "\n" not in caught.value.message
    assert "download" in (caught.value.hint or "") or OFFICIAL_PAGE in (caught.value.hint or "")


def test_a_damaged_archive_is_refused_or_read_right(tmp_path: Path, whole) -> None:
    """Damage may lie where nothing is read: in times and owners."""
    packed, versions = whole
    right = load_cifar(write_bytes(tmp_path / "right", packed), versions)
    numbers = random.Random(0)
    refused = 0
    for round_number in range(60):
        content = bytearray(packed if round_number % 2 else gzip.decompress(packed))
        for _ in range(numbers.choice([1, 3, 50])):
            place = numbers.randrange(min(len(content), numbers.choice([600, 10**9])))
            content[place] = numbers.randrange(256)
        try:
            read = load_cifar(write_bytes(tmp_path / "damaged", bytes(content)), versions)
        except BfedgeError:
            refused += 1
            continue
        assert np.array_equal(read[0][0], right[0][0])
        assert np.array_equal(read[1][1], right[1][1])
    assert refused > 30


def write_bytes(path: Path, content: bytes) -> Path:
    path.write_bytes(content)
    return path


# ---------------------------------------------------------------- pickles made to do harm


class Shell:
    def __init__(self, command: str) -> None:
        self.command = command

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.system, (self.command,)


def harmful(command: str) -> list[bytes]:
    """Everything by which a pickle can call a function."""
    words = command.encode()
    text = b"U" + bytes([len(words)]) + words
    handmade = [
        b"cos\nsystem\n(" + text + b"tR.",
        b"\x80\x02cposix\nsystem\n" + text + b"\x85R.",
        b"(" + text + b"ios\nsystem\n.",
        b"(cos\nsystem\n" + text + b"o.",
        b"\x80\x02cos\nsystem\n" + text + b"\x85\x81.",
        b"\x80\x04\x8c\x02os\x8c\x06system\x93" + text + b"\x85R.",
        b"cbuiltins\neval\n(U\x20__import__('os').system('true # ')tR.",
        b"cnumpy\nndarray\n(K\x00tRcos\nsystem\nb.",
        b"cnumpy.core.multiarray\n_reconstruct\ncos\nsystem\n\x85R.",
        b"cnumpy.core.multiarray\n_reconstruct.__globals__\n(tR.",
        b"ccopyreg\n_reconstructor\n(tR.",
        b"Pos.system\n.",
        b"\x82\x01.",
    ]
    return [*(pickle.dumps(Shell(command), protocol) for protocol in range(6)), *handmade]


def test_no_pickle_runs_a_command(tmp_path: Path) -> None:
    mark = tmp_path / "ran"
    attacks = harmful(f"touch {mark}")
    pickle.loads(attacks[0])
    assert mark.exists(), "the attack works on one who trusts pickles"
    mark.unlink()
    for attack in attacks:
        with pytest.raises(ValueError, match="not a pickle of plain values") as caught:
            read_plain_pickle(attack)
        assert len(str(caught.value)) < 300
    files = make_files(CIFAR100_PYTHON, make_sample(CIFAR100_PYTHON))
    for name in ("train", "meta"):
        for attack in (*attacks, files[name][:-1] + attacks[0][:-1] + b"0."):
            path = write_archive(tmp_path / "c.tar", official(CIFAR100_PYTHON, {**files, name: attack}))
            with pytest.raises(BfedgeError, match=f"`: {name} is not a pickle of plain values"):
                load_cifar(path, unchecked(CIFAR100_PYTHON))
            with pytest.raises(BfedgeError, match="has MD5"):
                load_cifar(path, with_sums(CIFAR100_PYTHON, files))
    assert not mark.exists()


def test_pickles_that_would_take_all_memory_are_refused() -> None:
    """A memo of 4 billion places, a string of 2 GB that is not there, 3 million empty dictionaries."""
    assert read_plain_pickle(b"\x80\x02Nr\xff\xff\xff\xff.") is None
    for bomb in (b"\x80\x02T\xff\xff\xff\x7f.", b"\x80\x02" + b"}" * 3_000_000 + b".", b"\x80\x022" * 100 + b"."):
        with pytest.raises(ValueError, match="not a pickle of plain values"):
            read_plain_pickle(bomb)


VALID = make_files(CIFAR100_PYTHON, make_sample(CIFAR100_PYTHON))["meta"][:200] + b"."
OPCODES = b"().012NIJKMPQRSTUVXabcdeghijlopqrstu}]\x80\x81\x85\x86\x87\x88\x89\x8a\x8b\x8c\x93\x94"


@given(st.lists(st.one_of(st.sampled_from([bytes([o]) for o in OPCODES]), st.binary(max_size=6)), max_size=40))
@settings(max_examples=300, deadline=None)
def test_any_bytes_are_read_or_refused(pieces: list[bytes]) -> None:
    for content in (
        b"".join(pieces),
        VALID[:40] + b"".join(pieces),
        array_operations(np.zeros((2, 2), np.uint8))[: len(pieces) * 5],
    ):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of escapes in strings
            try:
                value = read_plain_pickle(content)
            except ValueError:
                continue
            try:
                assert byte_array(value).dtype == np.uint8
            except ValueError:
                continue


# ---------------------------------------------------------------- contents that are not of the form


def spoilt(**changes: object) -> dict[str, object]:
    sample = make_sample(CIFAR100_PYTHON)
    return {"data": sample.rows[0], "fine_labels": sample.classes[0], **changes}


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ([1, 2], "train holds no dictionary"),
        ({"fine_labels": [1]}, "train: its data are no array"),
        (spoilt(data=[1, 2]), "train: its data are no array"),
        (spoilt(data=np.zeros((EACH, 3071), np.uint8)), r"data of shape \[20, 3071\]"),
        (spoilt(data=np.zeros((EACH + 1, 3072), np.uint8)), "one class for each of its 21 images"),
        (spoilt(fine_labels=[1] * 19), "one class for each of its 20 images"),
        (spoilt(fine_labels=["1"] * 20), "one class for each of its 20 images"),
        (spoilt(fine_labels="1" * 20), "one class for each of its 20 images"),
        (spoilt(fine_labels=[100] * 20), "classes other than 0 to 99"),
        (spoilt(fine_labels=[-1] * 20), "classes other than 0 to 99"),
    ],
)
def test_pickles_of_another_form(tmp_path: Path, values: object, message: str) -> None:
    files = make_files(CIFAR100_PYTHON, make_sample(CIFAR100_PYTHON))
    path = write_folder(tmp_path / "c", {**files, "train": pickled(values)})
    with pytest.raises(BfedgeError, match=message):
        load_cifar(path, unchecked(CIFAR100_PYTHON))


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        (b"U\x02u1", b"U\x02f8", "no array of uint8"),
        (b"U\x02u1", b"U\x02O8", "no array of uint8"),
        (b"K\x14M", b"K\x15M", "no whole array"),
        (b"J\x00\x0c\x00\x00\x86", b"J\x00\x0c\x00\x80\x86", "no whole array"),
        (b"(K\x01K\x14", b"(K\x01N", "no whole array"),
    ],
)
def test_arrays_of_another_form(tmp_path: Path, old: bytes, new: bytes, message: str) -> None:
    files = make_files(CIFAR100_PYTHON, make_sample(CIFAR100_PYTHON))
    if old == b"K\x14M":
        old, new = b"K\x14J", b"K\x15J"
    assert old in files["train"]
    path = write_folder(tmp_path / "c", {**files, "train": files["train"].replace(old, new, 1)})
    with pytest.raises(BfedgeError, match=message):
        load_cifar(path, unchecked(CIFAR100_PYTHON))


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("train.bin", bytes(3073), "3073 bytes, no multiple of a record's 3074"),
        ("train.bin", b"", "train.bin has no images"),
        ("test.bin", b"\0\x64" + bytes(3072), "test.bin has no images, or classes other than 0 to 99"),
        ("fine_label_names.txt", b"one\ntwo\n", "names 2 classes, CIFAR-100 .* has 100"),
        ("fine_label_names.txt", b"\xff\xfe", "names 1 classes"),
    ],
)
def test_binary_files_of_another_form(tmp_path: Path, name: str, content: bytes, message: str) -> None:
    files = make_files(CIFAR100_BINARY, make_sample(CIFAR100_BINARY))
    path = write_folder(tmp_path / "c", {**files, name: content})
    with pytest.raises(BfedgeError, match=message):
        load_cifar(path, unchecked(CIFAR100_BINARY))


@pytest.mark.parametrize("names", [["a"] * 99, [1] * 100, [""] * 100, "a" * 100, {}])
def test_names_of_another_form(tmp_path: Path, names: object) -> None:
    files = make_files(CIFAR100_PYTHON, make_sample(CIFAR100_PYTHON))
    path = write_folder(tmp_path / "c", {**files, "meta": pickled({"fine_label_names": names})})
    with pytest.raises(BfedgeError, match="meta "):
        load_cifar(path, unchecked(CIFAR100_PYTHON))
