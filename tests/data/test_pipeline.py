import numpy as np
import pytest

from jhand.data.augmentation import augment
from jhand.data.clip import flatten
from jhand.data.pipeline import Cached, batches
from tests.data.clips import make_clip


class Numbers:
    """Clips that are their own number."""

    def __init__(self, number, first=0):
        self.number, self.first, self.reads = number, first, 0

    def __len__(self):
        return self.number

    def __getitem__(self, index):
        self.reads += 1
        return {"image": np.full((1, 1, 4, 4, 3), 0, np.uint8), "n": np.array(self.first + index)}


def number_of(clip):
    return {"n": clip["n"]}


def noisy(clip, rng):
    return {**clip, "n": clip["n"] + rng.random()}


def take(data, count):
    found, iterator = [], iter(data)
    for _ in range(count):
        found.append(next(iterator)["n"])
    iterator.close()
    return np.concatenate(found)


def test_an_epoch_holds_every_clip_once_in_a_new_order():
    data = batches(Numbers(24), number_of, batch=4, seed=1)
    n = take(data, 12)
    assert sorted(n[:24]) == sorted(n[24:]) == list(range(24))
    assert (n[:24] != n[24:]).any()


def test_the_order_does_not_depend_on_threads():
    expected = take(batches(Numbers(24), number_of, batch=4, seed=1, augment=noisy, threads=1), 9)
    for threads in (0, 4):
        found = take(batches(Numbers(24), number_of, batch=4, seed=1, augment=noisy, threads=threads), 9)
        np.testing.assert_array_equal(found, expected)
    assert (take(batches(Numbers(24), number_of, batch=4, seed=2, augment=noisy), 9) != expected).any()


def test_it_resumes_in_the_middle_of_an_epoch_augmentation_included():
    make = lambda: batches(Numbers(24), number_of, batch=4, seed=1, augment=noisy)  # noqa: E731
    expected = take(make(), 11)
    iterator = iter(make())
    for _ in range(4):
        next(iterator)
    state = iterator.get_state()
    again = iter(make())
    again.set_state(state)
    np.testing.assert_array_equal(np.concatenate([next(again)["n"] for _ in range(7)]), expected[16:])
    iterator.close(), again.close()


def test_processes_share_an_epoch():
    parts = [take(batches(Numbers(24), number_of, batch=4, seed=1, process=(i, 3)), 2) for i in range(3)]
    assert sorted(np.concatenate(parts)) == list(range(24))
    whole = take(batches(Numbers(24), number_of, batch=4, seed=1), 6)
    np.testing.assert_array_equal(np.stack(parts, 1).ravel(), whole)


def test_sources_are_mixed_by_weight():
    n = take(batches([(Numbers(40), 3.0), (Numbers(40, 100), 1.0)], number_of, batch=4, seed=1), 50)
    assert abs((n < 100).mean() - 0.75) < 0.02


def test_one_epoch_ends():
    data = batches(Numbers(10), number_of, batch=4, seed=1, repeat=False, shuffle=False)
    assert [list(b["n"]) for b in data] == [[0, 1, 2, 3], [4, 5, 6, 7]]


def test_clips_are_kept_as_far_as_they_fit():
    source = Numbers(10)
    cached = Cached(source, most_bytes=3 * 56)
    for _ in range(2):
        for index in range(10):
            cached[index]
    assert source.reads == 10 + 7


def test_real_clips_become_batches():
    def prepare(clip):
        hand = clip["hands"]["right"]
        return {"image": clip["image"], "hand": {"uv": hand["keypoints2d"], "visible": hand["visible"]}}

    clips = [make_clip(seed) for seed in range(6)]
    batch = next(iter(batches(clips, prepare, batch=3, seed=0, augment=augment)))
    assert batch["image"].shape == (3, 2, 2, 48, 64, 3)
    assert flatten(batch)["hand.uv"].shape == (3, 2, 2, 21, 2)


def test_what_cannot_be_batched_is_said():
    with pytest.raises(ValueError, match="fewer than"):
        batches(Numbers(3), number_of, batch=4, seed=0)
    with pytest.raises(ValueError, match="positive weight"):
        batches([(Numbers(10), 0.0)], number_of, batch=4, seed=0)
    with pytest.raises(ValueError, match="process"):
        batches(Numbers(10), number_of, batch=4, seed=0, process=(2, 2))
