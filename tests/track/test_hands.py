import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jhand.track import Hands, Region, crop, detect_hands, hands_in_image, hands_in_regions, landmarks
from tests.track.pictures import random_picture, video_frames


def test_from_crop_to_image():
    """Points of the crop go where the crop was taken, depth grows with it, and the hand in metres turns with it."""
    rng = np.random.default_rng(0)
    hands = Hands(
        score=jnp.ones(2),
        right=jnp.ones(2),
        keypoints2d=jnp.asarray(rng.uniform(0, 224, (2, 21, 2)), jnp.float32),
        depth=jnp.asarray(rng.normal(size=(2, 21)), jnp.float32),
        keypoints3d=jnp.asarray(rng.normal(size=(2, 21, 3)), jnp.float32),
    )
    angle = np.array([0.4, -2.0])
    region = Region(centre=jnp.array([[50.0, 60], [70, 20]]), side=jnp.array([112.0, 448]), angle=jnp.asarray(angle))
    found = hands_in_image(hands, region)
    for i, scale in enumerate((0.5, 2.0)):
        R = np.array([[np.cos(angle[i]), -np.sin(angle[i])], [np.sin(angle[i]), np.cos(angle[i])]])
        expected = (np.asarray(hands.keypoints2d[i]) - 111.5) * scale @ R.T + np.asarray(region.centre[i])
        np.testing.assert_allclose(found.keypoints2d[i], expected, atol=1e-3)
        np.testing.assert_allclose(found.depth[i], scale * hands.depth[i], rtol=1e-5)
        np.testing.assert_allclose(found.keypoints3d[i, :, :2], hands.keypoints3d[i, :, :2] @ R.T, atol=1e-5)
        np.testing.assert_allclose(found.keypoints3d[i, :, 2], hands.keypoints3d[i, :, 2])


def test_batches_and_gradients(lite):
    images = random_picture(64)[None].repeat(2, 0)
    regions = Region(centre=jnp.full((2, 2, 2), 30.0), side=jnp.full((2, 2), 50.0), angle=jnp.array([[0.0, 1], [1, 0]]))
    hands = hands_in_regions(lite, images, regions)
    assert hands.keypoints2d.shape == (2, 2, 21, 2)
    np.testing.assert_allclose(hands.keypoints2d[0, 0], hands.keypoints2d[1, 1], atol=1e-2)
    np.testing.assert_allclose(hands.score[0, 1], hands.score[1, 0], atol=1e-4)

    def presence(image):
        return jnp.sum(landmarks(lite, crop(image, regions, 224)[0, 0]).score)

    gradient = jax.jit(jax.grad(presence))(images)
    assert np.isfinite(gradient).all() and gradient[0].any() and not gradient[1].any()


def test_a_mirrored_hand_is_the_other_hand(lite, shared_data):
    """The hand of the recording is a right one, and its picture is not mirrored."""
    frame = video_frames(shared_data("hand_video/human_hand_video.mp4"), [0])[0]
    pair = np.stack([frame, frame[:, ::-1]])
    hands = detect_hands(lite, pair, num_hands=1)
    assert hands.present.all()
    assert hands.right[0, 0] > 0.8 and hands.right[1, 0] < 0.2
    mirrored = np.asarray(hands.keypoints2d[1, 0] * np.array([-1.0, 1]) + np.array([frame.shape[1] - 1, 0]))
    np.testing.assert_allclose(mirrored, hands.keypoints2d[0, 0], atol=12)
    # the thumb of this right hand, palm to the camera, lies to the right in the picture; metres agree with pixels
    assert hands.keypoints2d[0, 0, 4, 0] > hands.keypoints2d[0, 0, 20, 0]
    assert hands.keypoints3d[0, 0, 4, 0] > hands.keypoints3d[0, 0, 20, 0]


def test_errors(lite):
    with pytest.raises(ValueError, match="224"):
        landmarks(lite, np.zeros((192, 192, 3), np.float32))
