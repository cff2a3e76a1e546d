"""Left and right: the mirror x -> -x, as between MANO's two files.

With M = diag(-1, 1, 1) a point p goes to M p and a rotation R to M R M. A rotation axis is a pseudo-vector and goes to
-M a, which is why axis-angle keeps its x and changes the signs of y and z. The mirrors of models, parameters and
rotations only change signs and orders: done twice they are the identity, bit for bit, and the mirrored hand with
mirrored parameters is the mirror image of the hand.
"""

from dataclasses import replace

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike, Float, Num, Shaped

from jhand.hand.model import NUM_POSE_FEATURES, HandModel, HandParams

_POINT = np.array([-1.0, 1.0, 1.0], np.float32)
_AXIS_ANGLE = -_POINT
_ROTATION = np.outer(_POINT, _POINT)


def mirror_points(points: ArrayLike) -> Float[Array, "*b 3"]:
    """Points, offsets or directions (..., 3) of the other side: (-x, y, z)."""
    return jnp.asarray(points) * _POINT


def mirror_axis_angle(axis_angle: ArrayLike) -> Float[Array, "*b 3"]:
    """Axis-angle vectors (..., 3) of the other side: (x, -y, -z), radians."""
    return jnp.asarray(axis_angle) * _AXIS_ANGLE


def mirror_rotation(rotation: ArrayLike) -> Float[Array, "*b 3 3"]:
    """Rotation matrices (..., 3, 3) of the other side: M R M."""
    return jnp.asarray(rotation) * _ROTATION


def mirror_params(params: HandParams) -> HandParams:
    """Parameters of the other side, any leading axes: they pose `mirror_hand(hand)` as the mirror of `hand`."""
    return HandParams(
        global_orient=mirror_axis_angle(params.global_orient),
        hand_pose=mirror_axis_angle(params.hand_pose),
        betas=jnp.asarray(params.betas),
        transl=mirror_points(params.transl),
    )


def mirror_hand(hand: HandModel) -> HandModel:
    """The hand of the other side: same vertices, tips, weights and name, triangles turned to face outwards again."""
    # a pose corrective answers to entries of R - I, whose signs change as those of R do
    answers = np.ones(hand.basis.shape[0], np.float32)
    answers[-NUM_POSE_FEATURES:] = np.tile(_ROTATION.ravel(), 15)
    return replace(
        hand,
        basis=hand.basis * (answers[:, None] * _POINT)[..., None],
        joint_basis=mirror_points(hand.joint_basis),
        faces=hand.faces[:, ::-1],
        hands_mean=hand.hands_mean * np.tile(_AXIS_ANGLE, 15),
        hands_components=hand.hands_components * np.tile(_AXIS_ANGLE, 15),
        axes=hand.axes * -_POINT[:, None],
        side="left" if hand.side == "right" else "right",
    )


def mirror_image(image: ArrayLike) -> Shaped[Array, "*b height width channels"]:
    """Images (..., H, W, C) of the other side: column u goes to W - 1 - u."""
    return jnp.flip(jnp.asarray(image), -2)


def mirror_keypoints2d(uv: ArrayLike, width: int) -> Num[Array, "*b 2"]:
    """Image points (..., 2) in `mirror_image` of an image `width` pixels wide; pixel centres are whole numbers.

    Args:
        uv: (..., 2) pixels.
        width: of the image, pixels.

    Returns:
        (..., 2) pixels: (width - 1 - u, v).
    """
    u, v = jnp.moveaxis(jnp.asarray(uv), -1, 0)
    return jnp.stack([width - 1 - u, v], -1)


def compare_sides(right: HandModel, left: HandModel) -> dict[str, float]:
    """How far two models are from being mirror images, as MPI's pair of files for one is not exactly.

    Args:
        right: a right hand.
        left: a left hand with the same number of vertices and shape coefficients.

    Returns:
        The largest absolute difference between each array of `left` and of `mirror_hand(right)`: metres for
        `v_template`, `shapedirs`, `posedirs`, `joints` and `joint_shapedirs`; radians for `hands_mean` and `hands_sd`;
        no unit for `weights`, `J_regressor`, `hands_components` and `axes`. `faces` is the number of triangles of
        `left` that the mirror image lacks, whichever vertex they start from.

    Raises:
        ValueError: two hands of the same side, the wrong way round, or of different sizes.
    """
    if (right.side, left.side) != ("right", "left"):
        raise ValueError(f"expected a right hand and a left hand, got a {right.side} and a {left.side} one")
    if (right.num_vertices, right.num_betas) != (left.num_vertices, left.num_betas):
        raise ValueError(
            f"expected hands of the same size, got {right.num_vertices} and {left.num_vertices} vertices, "
            f"{right.num_betas} and {left.num_betas} shape coefficients"
        )
    ours, theirs = _arrays(mirror_hand(right)), _arrays(left)
    differences = {name: float(np.abs(ours[name] - theirs[name]).max()) for name in ours}
    return differences | {"faces": float(len(_triangles(left.faces) - _triangles(right.faces[:, ::-1])))}


def _arrays(hand: HandModel) -> dict[str, np.ndarray]:
    names = ("v_template", "shapedirs", "posedirs", "weights", "J_regressor", "axes")
    names += ("hands_mean", "hands_components", "hands_sd")
    arrays = {name: getattr(hand, name) for name in names}
    arrays |= {"joints": hand.joint_basis[0], "joint_shapedirs": hand.joint_basis[1:]}
    return {name: np.asarray(array, np.float64) for name, array in arrays.items()}


def _triangles(faces: Array) -> set[tuple[int, ...]]:
    """Triangles turned to begin with their smallest vertex, orientation kept."""
    f = np.asarray(faces)
    turn = (f.argmin(1)[:, None] + np.arange(3)) % 3
    return set(map(tuple, np.take_along_axis(f, turn, 1).tolist()))
