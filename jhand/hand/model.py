"""The parametric hand as a pytree of arrays, and the parameters that pose it.

The layout is MANO's (Romero, Tzionas, Black, SIGGRAPH Asia 2017): a template mesh, ten shape directions, 135 pose
correctives, 16 joints, linear blend skinning. A model is data; what can be done with it are the functions of
`jhand.hand`.
"""

from dataclasses import dataclass, field, replace

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike, Float, Int

from jhand.geometry.rotations import so3_exp, so3_log
from jhand.geometry.se3 import rigid
from jhand.hand.axes import joint_axes

NUM_JOINTS = 16
NUM_POSE_FEATURES = 135  # nine entries of R - I for each of the 15 finger joints

PARENTS = (-1, 0, 1, 2, 0, 4, 5, 0, 7, 8, 0, 10, 11, 0, 13, 14)
"""Parent of each joint in MANO order: wrist, then index, middle, pinky, ring, thumb, three joints each."""


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class HandModel:
    """A hand to be shaped and posed. Made by `load_hand` or `make_hand`, never field by field.

    Shape and pose blend in one matrix product, so template, shape directions and pose correctives are rows of one
    `basis`; `v_template`, `shapedirs` and `posedirs` are views of it.
    """

    basis: Float[Array, "features 3 vertices"]
    """Rows: template (1), shape directions (B), pose correctives (135); columns grouped x, y, z. Metres."""
    joint_basis: Float[Array, "shape_features 16 3"]
    """Rest joints (row 0) and how each shape coefficient moves them. Metres."""
    weights: Float[Array, "vertices 16"]
    """Skinning weights; rows sum to 1."""
    faces: Int[Array, "faces 3"]
    """Triangles, counter-clockwise seen from outside."""
    J_regressor: Float[Array, "16 vertices"]
    """Joints of a rest mesh as weighted sums of its vertices."""
    hands_mean: Float[Array, "45"]
    """Mean pose, axis-angle relative to the flat hand."""
    hands_components: Float[Array, "45 45"]
    """Principal components of the pose, in rows, axis-angle."""
    hands_sd: Float[Array, "45"]
    """Standard deviation of each component's coefficient over the poses it was learned from, radians."""
    axes: Float[Array, "15 3 3"]
    """Columns flexion, abduction, twist: anatomical axes of each finger joint in the rest frame."""
    tips: tuple[int, ...] = field(metadata={"static": True})
    """Vertices of the fingertips: thumb, index, middle, ring, little."""
    side: str = field(metadata={"static": True})
    """`"right"` or `"left"`."""
    name: str = field(metadata={"static": True})
    """Name of the model that parameters belong to."""

    @property
    def num_betas(self) -> int:
        return self.joint_basis.shape[0] - 1

    @property
    def num_vertices(self) -> int:
        return self.basis.shape[-1]

    @property
    def v_template(self) -> Float[Array, "vertices 3"]:
        """Rest vertices at zero shape, metres."""
        return self.basis[0].T

    @property
    def shapedirs(self) -> Float[Array, "vertices 3 betas"]:
        """Displacement per unit of each shape coefficient, metres."""
        return jnp.transpose(self.basis[1 : 1 + self.num_betas], (2, 1, 0))

    @property
    def posedirs(self) -> Float[Array, "vertices 3 135"]:
        """Displacement per unit of each entry of R_1 - I .. R_15 - I, row-major, metres."""
        return jnp.transpose(self.basis[1 + self.num_betas :], (2, 1, 0))


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class HandParams:
    """Pose, shape and place of hands, with smplx's names and meanings. Leading axes of the four fields broadcast."""

    global_orient: Float[Array, "... 3"]
    """Axis-angle, radians, about the wrist joint."""
    hand_pose: Float[Array, "... 15 3"]
    """Axis-angle of the finger joints in MANO order, radians, relative to the flat hand."""
    betas: Float[Array, "... n"]
    """Shape coefficients."""
    transl: Float[Array, "... 3"]
    """Metres, added after rotation."""

    @classmethod
    def zeros(cls, batch: tuple[int, ...] = (), num_betas: int = 10) -> "HandParams":
        """The flat hand of mean shape at the model's origin, with leading axes `batch`."""
        return cls(
            global_orient=jnp.zeros((*batch, 3)),
            hand_pose=jnp.zeros((*batch, 15, 3)),
            betas=jnp.zeros((*batch, num_betas)),
            transl=jnp.zeros((*batch, 3)),
        )

    @property
    def batch(self) -> tuple[int, ...]:
        """Leading axes, broadcast."""
        return jnp.broadcast_shapes(
            self.global_orient.shape[:-1], self.hand_pose.shape[:-2], self.betas.shape[:-1], self.transl.shape[:-1]
        )


def check_params(params: HandParams, hand: HandModel) -> HandParams:
    """`params` as JAX arrays.

    Raises:
        ValueError: a field whose shape does not fit `hand`, with what was expected and what came.
    """
    params = jax.tree.map(jnp.asarray, params)
    expected = {"global_orient": (3,), "hand_pose": (15, 3), "betas": (hand.num_betas,), "transl": (3,)}
    for name, tail in expected.items():
        shape = getattr(params, name).shape
        if shape[-len(tail) :] != tail:
            hint = ""
            if name == "hand_pose" and shape[-1:] == (45,):
                hint = "; reshape it to (..., 15, 3)"
            elif name == "hand_pose" and shape[-2:] == (16, 3):
                hint = "; joint 0 is the wrist: pass it as global_orient"
            elif name == "betas" and shape:
                hint = f"; {hand.name} has {hand.num_betas} shape coefficients: pad with zeros"
            raise ValueError(f"{name}: expected shape (..., {', '.join(map(str, tail))}), got {shape}{hint}")
    try:
        _ = params.batch
    except ValueError:
        shapes = {name: getattr(params, name).shape for name in expected}
        raise ValueError(f"leading axes of the parameters do not broadcast: {shapes}") from None
    return params


def make_hand(
    *,
    v_template: ArrayLike,
    faces: ArrayLike,
    shapedirs: ArrayLike,
    posedirs: ArrayLike,
    weights: ArrayLike,
    J_regressor: ArrayLike,
    hands_mean: ArrayLike,
    hands_components: ArrayLike,
    tips: tuple[int, ...],
    side: str,
    name: str,
    hands_sd: ArrayLike | None = None,
    joints: ArrayLike | None = None,
    joint_shapedirs: ArrayLike | None = None,
) -> HandModel:
    """A `HandModel` from arrays in MANO's layout; checked by `load_hand`, trusted here.

    Args:
        v_template: (V, 3) metres.
        faces: (F, 3) vertex indices.
        shapedirs: (V, 3, B) metres.
        posedirs: (V, 3, 135) metres.
        weights: (V, 16).
        J_regressor: (16, V).
        hands_mean: (45,) axis-angle.
        hands_components: (45, 45) rows.
        tips: vertices of the thumb, index, middle, ring and little fingertips.
        side: `"right"` or `"left"`.
        name: name of the model.
        hands_sd: (45,) standard deviation of each component's coefficient; by default 0.5 radians each.
        joints: (16, 3) rest joints; by default `J_regressor @ v_template`, in float64.
        joint_shapedirs: (16, 3, B); by default regressed from `shapedirs`.

    Returns:
        The model, in float32.
    """
    if side not in ("right", "left"):
        raise ValueError(f'side: expected "right" or "left", got {side!r}')
    v = np.asarray(v_template, np.float64)
    S = np.asarray(shapedirs, np.float64)
    P = np.asarray(posedirs, np.float64)
    J = np.asarray(J_regressor, np.float64)
    rest = J @ v if joints is None else np.asarray(joints, np.float64)
    rest_dirs = np.einsum("jv,vcb->jcb", J, S) if joint_shapedirs is None else np.asarray(joint_shapedirs, np.float64)
    basis = np.concatenate([v[:, :, None], S, P], -1).transpose(2, 1, 0)
    f32 = lambda x: jnp.asarray(np.asarray(x, np.float32))  # noqa: E731
    return HandModel(
        basis=f32(basis),
        joint_basis=f32(np.concatenate([rest[:, :, None], rest_dirs], -1).transpose(2, 0, 1)),
        weights=f32(weights),
        faces=jnp.asarray(np.asarray(faces, np.int32)),
        J_regressor=f32(J),
        hands_mean=f32(hands_mean),
        hands_components=f32(hands_components),
        hands_sd=jnp.full(45, 0.5) if hands_sd is None else f32(hands_sd),
        axes=f32(joint_axes(rest, v[list(tips)], side)),
        tips=tuple(int(t) for t in tips),
        side=side,
        name=name,
    )


def rest_joints(hand: HandModel, betas: ArrayLike) -> Float[Array, "*b 16 3"]:
    """Joints of the flat hand of shape `betas` (..., B), metres, MANO order."""
    b = jnp.asarray(betas)
    offsets = jnp.einsum("...b,bjc->...jc", b, hand.joint_basis[1:], precision=jax.lax.Precision.HIGHEST)
    return jnp.broadcast_to(hand.joint_basis[0], offsets.shape) + offsets


def T_world_wrist(hand: HandModel, params: HandParams) -> Float[Array, "*b 4 4"]:
    """Rigid transform (..., 4, 4) from the wrist frame (origin at the wrist joint, axes of the rest hand) to the world.

    MANO rotates about the root joint and then translates, so the wrist joint lies at J_0(betas) + transl.
    """
    params = check_params(params, hand)
    root, transl = jnp.broadcast_arrays(rest_joints(hand, params.betas)[..., 0, :], params.transl)
    return rigid(so3_exp(params.global_orient), root + transl)


def with_T_world_wrist(hand: HandModel, params: HandParams, T_world_wrist: ArrayLike) -> HandParams:
    """`params` moved so that its wrist frame stands at `T_world_wrist` (..., 4, 4); the inverse of `T_world_wrist`."""
    T = jnp.asarray(T_world_wrist)
    wrist, root = jnp.broadcast_arrays(T[..., :3, 3], rest_joints(hand, params.betas)[..., 0, :])
    return replace(params, global_orient=so3_log(T[..., :3, :3]), transl=wrist - root)
