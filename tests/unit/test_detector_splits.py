"""Who trains, who chooses, who judges."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fruitgan.data.labelled import LabelledImage
from fruitgan.errors import DataError
from fruitgan.train_detector.protocols import explained, grouped_folds, grouped_split, half_split, seed_split


def labelled(fakes: Sequence[str], reals: Sequence[str], split: str = "") -> list[LabelledImage]:
    """Images with these groups."""
    return [
        LabelledImage(Path("predicted" if fake else "origins", f"{number:06d}.png"), fake, group, split, "")
        for fake, groups in ((True, fakes), (False, reals))
        for number, group in enumerate(groups)
    ]


def names(stem: str, n: int) -> list[str]:
    return [f"{stem}{number}" for number in range(n)]


group_lists = st.lists(st.integers(0, 40), min_size=25, max_size=80)


@settings(max_examples=30, deadline=None)
@given(fakes=group_lists, reals=group_lists, seed=st.integers(0, 99), shared=st.booleans())
def test_no_group_is_ever_on_two_sides_and_no_image_is_lost_or_doubled(
    fakes: list[int], reals: list[int], seed: int, shared: bool
) -> None:
    images = labelled([f"f{g}" for g in fakes], [f"{'f' if shared else 'r'}{g}" for g in reals])
    try:
        splits = [grouped_split(images, seed), half_split(images, seed), *grouped_folds(images, 3, seed)]
    except DataError:  # too few different things
        return
    for parts in splits:
        assert sorted(np.concatenate([parts.train, parts.val, parts.test, parts.left_out])) == list(range(len(images)))
        sides = [{images[i].group for i in part} for part in (parts.train, parts.val, parts.test)]
        assert not sides[0] & sides[1] | sides[0] & sides[2] | sides[1] & sides[2]
        kept = [images[i].generated for part in (parts.train, parts.val, parts.test) for i in part]
        assert kept.count(True) == kept.count(False)


def test_the_grouped_parts_have_their_shares_with_balanced_classes() -> None:
    images = labelled(names("f", 900), names("r", 900))
    parts = grouped_split(images, 0)
    assert [len(part) for part in (parts.train, parts.val, parts.test)] == [1152, 288, 360]
    for part in (parts.train, parts.val, parts.test):
        assert abs(2 * sum(images[i].generated for i in part) - len(part)) <= 2


def test_the_larger_class_is_cut_down_at_random() -> None:
    images = labelled(names("f", 100), names("r", 60))
    parts, others = grouped_split(images, 0), grouped_split(images, 1)
    assert len(parts.left_out) == 40
    assert all(images[i].generated for i in parts.left_out)
    assert list(parts.left_out) != list(others.left_out)
    assert np.array_equal(grouped_split(images, 0).test, parts.test)
    assert not np.array_equal(others.test, parts.test)


def test_the_seed_protocol_takes_the_first_fifth_of_each_class_by_name() -> None:
    images = labelled(names("f", 900), names("r", 900))
    shuffled = [images[i] for i in np.random.default_rng(0).permutation(len(images))]
    parts = seed_split(shuffled)
    assert np.array_equal(parts.val, parts.test)  # the leak: what chose is what is reported
    judged = [shuffled[i] for i in parts.test]
    for generated in (True, False):
        found = sorted(image.path.name for image in judged if image.generated == generated)
        assert found == [f"{number:06d}.png" for number in range(180)]
    assert (len(parts.train), len(parts.test), len(parts.left_out)) == (1440, 360, 0)
    assert not set(parts.train) & set(parts.test)


def test_the_seed_protocol_says_why_it_leaks_with_counts() -> None:
    images = labelled(names("apple", 20), names("apple", 20), split="train")
    images += [LabelledImage(Path("predicted/x.png"), True, "apple0", "train", "")]
    parts = seed_split(images)
    said = "\n".join(explained("seed", images, parts))
    assert "reads too high" in said
    assert "are also the validation images" in said
    assert "2 of them show what a training image shows" in said
    assert "4 of the 4 fakes among them were made from images that the generator was trained on" in said


def test_too_few_images_say_how_many_are_needed() -> None:
    for split in (grouped_split, seed_split):
        with pytest.raises(DataError, match="30 generated and 9 real ones, at least 14 of each"):
            split(labelled(names("f", 30), names("r", 9)), 0)
    with pytest.raises(DataError, match="show only 4 different things"):
        grouped_split(labelled(["a", "b"] * 10, ["c", "d"] * 10), 0)


def test_a_half_is_half_of_the_groups_and_says_when_there_are_too_few() -> None:
    images = [LabelledImage(Path(f"{i}.png"), i % 2 == 0, f"group {i // 4}", "", "") for i in range(120)]
    assert abs(len(half_split(images, 0).test) - 60) <= 4
    with pytest.raises(DataError, match="show only 2 different things"):
        half_split([LabelledImage(Path(f"{i}.png"), i % 2 == 0, f"group {i % 2}", "", "") for i in range(40)], 0)
