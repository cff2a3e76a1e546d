"""H2O's network of a grid: two hands and an object from one picture, by the cell that is surest of each.

Claims  confidence by how near points are against confidence by which cell has the root; cells in depth against a single
        one; Kwon et al., ICCV 2021, on Tekin et al., CVPR 2019
Shows   mean end point errors of hands and objects in the camera's space, about their roots, and of the roots; ADD of
        the box fitted to their control points; classes; whether what is there is surer than what is not; all of people
        never trained on
Cost    cpu: about 5 minutes of one core a variant and seed; gpu: not run yet
Command python -m experiments.h2o claims --preset cpu --seeds 3
Expect  up to a tenth lower errors for either
"""

import jax
import jax.numpy as jnp
import numpy as np

from jhand import metrics
from jhand.claims import Claim
from jhand.data.held_boxes import BoxScene, held_box
from jhand.data.made import Made
from jhand.data.object_actions import HALF_SIZES
from jhand.experiment import Batch, Experiment, Pooled, Preset, main
from jhand.geometry import rigid, transform
from jhand.hand import HandModel
from jhand.systems import h2o as system

VARIANTS = {"full": {}, "cell": {"confidence": "cell"}, "flat": {"depths": 1}}


def _over(errors: jax.Array, batch: Batch, of: slice) -> jax.Array:
    """Means (B,) over those of errors (B, 3) that are there; NaN where none is."""
    valid = jnp.asarray(batch["valid"])[:, of]
    number = jnp.sum(valid, -1)
    return jnp.where(number > 0, jnp.sum(jnp.where(valid, errors[:, of], 0), -1) / jnp.maximum(number, 1), jnp.nan)


ALL, HANDS, OBJECT = slice(0, 3), slice(0, 2), slice(2, 3)


def _end_points(of: slice):
    """Mean end point error in the camera's space, of some of the three."""

    def error(outputs: system.Outputs, batch: Batch, hand: HandModel) -> jax.Array:
        return _over(metrics.mpjpe(outputs.points, batch["points"]), batch, of)

    return error


def roots(outputs: system.Outputs, batch: Batch, hand: HandModel) -> jax.Array:
    return _over(metrics.mpjpe(outputs.points[:, :, :1], batch["points"][:, :, :1]), batch, ALL)


def hands_about_roots(outputs: system.Outputs, batch: Batch, hand: HandModel) -> jax.Array:
    return _over(metrics.root_aligned_mpjpe(outputs.points, batch["points"]), batch, HANDS)


def add(outputs: system.Outputs, batch: Batch, hand: HandModel) -> jax.Array:
    """Of the box of the class that was found, placed by its control points."""
    placed = transform(rigid(outputs.R_object, outputs.t_object), system.boxes_of(outputs.classes))
    far = metrics.mpjpe(placed, batch["points"][:, 2])
    return _over(jnp.broadcast_to(far[:, None], (len(far), 3)), batch, OBJECT)


def auc(outputs: system.Outputs, batch: Batch, hand: HandModel) -> jax.Array:
    """The area under the curve of accuracy over the threshold of `add`, up to 10 cm."""
    return metrics.add_auc(add(outputs, batch, hand))


def classes(outputs: system.Outputs, batch: Batch, hand: HandModel) -> jax.Array:
    """1 where it is known what the object is."""
    right = (jnp.argmax(outputs.classes, -1) == batch["classes"]).astype(jnp.float32)
    return _over(right, batch, OBJECT)


def confidence_and_valid(outputs: system.Outputs, batch: Batch, hand: HandModel) -> jax.Array:
    return jnp.stack([outputs.confidence, jnp.asarray(batch["valid"], jnp.float32)], -1)


def surer_where_there(each: jax.Array) -> jax.Array:
    """How often what is there has more confidence than what is not (the area under the ROC curve), of (N, 3, 2)."""
    sure, valid = each[..., 0], each[..., 1] > 0
    pairs = valid[:, None] & ~valid
    more = (sure[:, None] > sure) + 0.5 * (sure[:, None] == sure)
    return jnp.sum(jnp.where(pairs, more, 0)) / jnp.sum(pairs)


METRICS = {
    "everything": _end_points(ALL),
    "hands": _end_points(HANDS),
    "left": _end_points(slice(0, 1)),
    "right": _end_points(slice(1, 2)),
    "object": _end_points(OBJECT),
    "roots": roots,
    "hands_about_roots": hands_about_roots,
    "add": add,
    "auc": auc,
    "classes": classes,
    "there": Pooled(confidence_and_valid, surer_where_there),
}


def mean_points(sample: Batch, hand: HandModel):
    """The trivial answer: everything is where it is in the mean."""
    valid = np.asarray(sample["valid"])[..., None, None]
    mean = np.sum(np.where(valid, sample["points"], 0), 0) / np.maximum(valid.sum(0), 1)
    common = np.bincount(np.asarray(sample["object"])).argmax() + 1

    def answer(batch: Batch) -> system.Outputs:
        number = len(batch["object"])
        points = jnp.broadcast_to(jnp.asarray(mean, jnp.float32), (number, 3, 21, 3))
        logits = jnp.broadcast_to(jax.nn.one_hot(common, len(HALF_SIZES) + 1), (number, 3, len(HALF_SIZES) + 1))
        R = jnp.broadcast_to(jnp.eye(3), (number, 3, 3))
        return system.Outputs(points, jnp.ones((number, 3)), logits, R, points[:, 2, 0])

    return answer


def claim(name: str, statement: str, ablation: str, metric: str = "everything", **more) -> Claim:
    sides = {side: VARIANTS[side] for side in ("full", ablation)}
    return Claim(name, statement, metric, sides, ("full", ablation), expected=(0.0, 0.1), **more)


def people(first: int, last: int, size: int, turn: float = 1.2) -> Made:
    return Made(held_box, BoxScene(size=size, turn=turn, subjects=(first, last)))


experiment = Experiment(
    system=system,
    presets={
        "cpu": Preset(
            system.Config.tiny(),
            people(0, 30, 96, 0.6),
            steps=1600,
            batch=16,
            clips=5120,
            held_out=512,
            held_out_world=people(30, 40, 96, 0.6),
            evaluate_every=1600,
        ),
        "gpu": Preset(
            system.Config.small(),
            people(0, 300, 224),
            steps=60_000,
            batch=32,
            clips=None,
            held_out=2048,
            held_out_world=people(300, 400, 224),
            evaluate_every=20_000,
        ),
        "paper": Preset(
            system.Config.paper(),
            people(0, 300, 416),
            steps=200_000,
            batch=16,
            clips=None,
            held_out=2048,
            held_out_world=people(300, 400, 416),
            evaluate_every=50_000,
        ),
    },
    metrics=METRICS,
    units={name: ("%", 100.0) if name in ("auc", "classes", "there") else ("mm", 1000.0) for name in METRICS},
    baseline=mean_points,
    claims=[
        claim("confidence", "cells are to be sure of near points, not of having the root", "cell", primary=True),
        claim("depth", "space is to be cut in depth, too", "flat"),
    ],
    stand_ins=("boxes of eight sizes and colours, for H2O's objects", "a trunk trained on nothing else, for Darknet's"),
)

if __name__ == "__main__":
    main(experiment)
