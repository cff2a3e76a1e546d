import jax
import numpy as np
import pytest
from numpy.testing import assert_allclose
from scipy.ndimage import binary_dilation, distance_transform_edt, gaussian_filter

from jhand.metrics import boundary_f, iou, mean_iou

H, W, CLASSES = 37, 52, 5


def labels(batch, seed=0):
    """Blobs of classes 0 to 3: class 4 is never there."""
    rng = np.random.default_rng(seed)
    smooth = gaussian_filter(rng.normal(size=(*batch, H, W)), [0] * len(batch) + [4, 4])
    return np.digitize(smooth / smooth.std(), [-0.7, 0, 0.7])


def iou_oracle(p, t, valid):
    found = np.full(CLASSES, np.nan)
    for c in range(CLASSES):
        a, b = (p == c)[valid], (t == c)[valid]
        if (a | b).any():
            found[c] = (a & b).sum() / (a | b).sum()
    return found


@pytest.mark.parametrize("batch", [(), (2, 3)])
def test_iou_against_counting(batch):
    p, t, valid = labels(batch), labels(batch, 1), labels(batch, 2) > 0
    p = np.where(np.random.default_rng(4).random(p.shape) < 0.6, t, p)
    for mask in (None, valid):
        each, mean = iou(p, t, CLASSES, mask), mean_iou(p, t, CLASSES, mask)
        assert each.shape == (*batch, CLASSES) and mean.shape == batch
        for i in np.ndindex(*batch):
            expected = iou_oracle(p[i], t[i], np.ones((H, W), bool) if mask is None else mask[i])
            assert np.isnan(expected[4])
            assert_allclose(each[i], expected, rtol=1e-6)
            assert_allclose(mean[i], np.nanmean(expected), rtol=1e-6)


def test_iou_of_no_pixels_and_of_none_of_the_classes():
    p = labels(())
    assert np.isnan(mean_iou(p, p, CLASSES, np.zeros((H, W), bool)))
    assert np.isnan(iou(p + 100, p + 100, CLASSES)).all()
    assert_allclose(iou(p, p, 4), 1)
    assert_allclose(iou(np.full((2, 2), 1), np.array([[1, 1], [0, 255]]), 2), [0, 0.5])
    stacked = jax.vmap(lambda a, b: mean_iou(a, b, 4))(np.stack([p, p]), np.stack([p, 3 - p]))
    assert_allclose(stacked, [1, mean_iou(p, 3 - p, 4)])


def outline_oracle(mask):
    """A pixel that differs from its neighbour to the right, below, or below to the right."""
    edge = np.zeros_like(mask)
    for y, x in np.ndindex(mask.shape):
        for dy, dx in ((0, 1), (1, 0), (1, 1)):
            if y + dy < mask.shape[0] and x + dx < mask.shape[1]:
                edge[y, x] |= mask[y, x] != mask[y + dy, x + dx]
    return edge


def boundary_oracle(p, t, tolerance):
    """By dilation with a disc and, from the definition, by exact distances."""
    p, t = outline_oracle(p), outline_oracle(t)
    radius = int(np.ceil(tolerance * np.linalg.norm(p.shape)))
    y, x = np.mgrid[-radius : radius + 1, -radius : radius + 1]

    def share(a, b):
        if not a.any():
            return 1.0
        near = binary_dilation(b, x**2 + y**2 <= radius**2)
        if b.any():
            assert (near == (distance_transform_edt(~b) <= radius)).all()
        return (a & near).sum() / a.sum()

    precision, recall = share(p, t), share(t, p)
    return 2 * precision * recall / (precision + recall) if precision + recall else 0.0


@pytest.mark.parametrize("tolerance", [0.008, 0.05])
def test_boundary_against_scipy(tolerance):
    p, t = labels((3,)) > 1, labels((3,), 1) > 1
    p[0] = np.roll(t[0], 1, 1)
    p[1, 20:] = t[1, 20:]
    expected = [boundary_oracle(a, b, tolerance) for a, b in zip(p, t, strict=True)]
    assert 0.1 < min(expected) < 0.95
    assert_allclose(boundary_f(p, t, tolerance=tolerance), expected, rtol=1e-6)
    assert_allclose(boundary_f(p[:, None], t, tolerance=tolerance)[1, 1], expected[1], rtol=1e-6)
    assert_allclose(jax.vmap(lambda a, b: boundary_f(a, b, tolerance=tolerance))(p, t), expected, rtol=1e-6)


def test_boundary_of_empty_masks_is_as_in_davis():
    some, none = labels(()) > 1, np.zeros((H, W), bool)
    assert_allclose(boundary_f(some, some), 1)
    assert_allclose(boundary_f(none, none), 1)
    assert_allclose(boundary_f(some, none), 0)
    assert_allclose(boundary_f(none, some), 0)
    assert_allclose(boundary_f(some, none, none), 1)  # nothing counts: both are empty
    void = labels((), 3) > 0
    assert_allclose(boundary_f(some, ~some, void), boundary_oracle(some & void, ~some & void, 0.008), rtol=1e-6)


def test_wrong_input_is_refused():
    with pytest.raises(ValueError, match=r"one size \(..., H, W\), got \(3, 4\) and \(4, 3\)"):
        iou(np.zeros((3, 4), int), np.zeros((4, 3), int), 2)
    with pytest.raises(ValueError, match="labels == hand"):
        boundary_f(np.zeros((3, 4)), np.zeros((3, 4)))
    with pytest.raises(ValueError, match=r"valid: expected shape \(..., 3, 4\)"):
        mean_iou(np.zeros((3, 4), int), np.zeros((3, 4), int), 2, np.ones(3, bool))
