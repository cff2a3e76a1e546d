"""Hands in regions of pictures: 21 keypoints in pixels and in metres, and which hand it is."""

from dataclasses import dataclass

import jax
import jax.numpy as jnp
from jaxtyping import Array, ArrayLike, Bool, Float

from jhand.track.networks import HAND_SIZE, Networks, hand_outputs
from jhand.track.regions import Region, checked_images, crop, points_in_image, turned

_DEPTH = 0.4
"""What MediaPipe divides the network's depth by to make it as large as x and y (`normalize_z`)."""


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Hands:
    """What was seen of hands. Keypoints are in the order `mediapipe21`, which is `openpose21`.

    MediaPipe names the side as it is in a mirrored picture, a selfie; here it is that of the hand itself, where the
    picture is not mirrored. Its landmarks are no anatomical joints (`jhand.fit_landmarks`).
    """

    score: Float[Array, "*b"]
    """Probability that there is a hand; 0 where a slot is empty, and so is all the rest then."""
    right: Float[Array, "*b"]
    """Probability that it is a right hand, in a picture that is not mirrored."""
    keypoints2d: Float[Array, "*b 21 2"]
    """Pixels, centres at integers."""
    depth: Float[Array, "*b 21"]
    """How much farther from the camera than about the wrist, in pixels: as it would look from the side."""
    keypoints3d: Float[Array, "*b 21 3"]
    """Metres, axes of the camera (x right, y down, z forward), about the middle of the hand: true to the network's idea
    of a hand's size, not to the hand's own.
    """

    @property
    def present(self) -> Bool[Array, "*b"]:
        """Which slots hold a hand."""
        return self.score > 0


def no_hands(slots: int) -> Hands:
    """Empty slots (slots,)."""
    return Hands(
        score=jnp.zeros(slots),
        right=jnp.zeros(slots),
        keypoints2d=jnp.zeros((slots, 21, 2)),
        depth=jnp.zeros((slots, 21)),
        keypoints3d=jnp.zeros((slots, 21, 3)),
    )


@jax.jit
def landmarks(networks: Networks, crops: ArrayLike) -> Hands:
    """Hands in crops: upright, fingers up, as `crop` makes them of regions.

    Args:
        networks: from `load_networks`.
        crops: (..., 224, 224, 3), 0 to 1.

    Returns:
        Leading axes (...); pixels and axes are those of the crop. Every crop has an answer: what it is worth, `score`
        says.

    Raises:
        ValueError: crops of another size.
    """
    x = jnp.asarray(crops, jnp.float32)
    if x.shape[-3:] != (HAND_SIZE, HAND_SIZE, 3):
        raise ValueError(f"crops: expected (..., {HAND_SIZE}, {HAND_SIZE}, 3), as `crop` makes them, got {x.shape}")
    image, world, presence, right = hand_outputs(networks.hand, x.reshape(-1, *x.shape[-3:]))
    hands = Hands(
        score=jax.nn.sigmoid(presence),
        right=jax.nn.sigmoid(right),
        keypoints2d=image[..., :2] - 0.5,
        depth=image[..., 2] / _DEPTH,
        keypoints3d=world,
    )
    return jax.tree.map(lambda a: a.reshape(*x.shape[:-3], *a.shape[1:]), hands)


@jax.jit
def hands_in_image(hands: Hands, regions: Region) -> Hands:
    """What `landmarks` says of crops, in pixels and axes of the image.

    Args:
        hands: leading axes (...), of crops.
        regions: leading axes (...), where these were cut out.

    Returns:
        Leading axes (...).
    """
    x, y, z = jnp.moveaxis(hands.keypoints3d, -1, 0)
    xy = turned(jnp.stack([x, y], -1), regions.angle[..., None])
    return Hands(
        score=hands.score,
        right=hands.right,
        keypoints2d=points_in_image(regions, (hands.keypoints2d + 0.5) / HAND_SIZE),
        depth=hands.depth * regions.side[..., None] / HAND_SIZE,
        keypoints3d=jnp.concatenate([xy, z[..., None]], -1),
    )


@jax.jit
def hands_in_regions(networks: Networks, images: ArrayLike, regions: Region) -> Hands:
    """Hands in given regions of pictures; differentiable with respect to the images and the regions.

    Args:
        networks: from `load_networks`.
        images: (..., H, W, 3), red first: uint8, or floats from 0 to 1.
        regions: one of each image, leading axes (...), or several, (..., N).

    Returns:
        Leading axes of the regions.

    Raises:
        ValueError: shapes that do not fit.
    """
    crops = crop(checked_images(images), regions, HAND_SIZE)
    return hands_in_image(landmarks(networks, crops), regions)
