"""HOGraspNet's grasp benchmark: which type of the taxonomy a grasp is, from the hand's pose and where it touches.

Claims  pose and contact together tell more than either alone; the splits are ever harder: unseen trials, subjects or a
        camera, objects, grasp types; Cho et al., ECCV 2024
Shows   accuracy of 13 types, and which share of a type's attributes is right, which also counts for types that were
        never seen; subjects, objects and cameras as many as the dataset's, their grasps made by `jhand.contact`
Cost    cpu: about 10 minutes on two cores; gpu: not run yet
Command python -m experiments.hograspnet_grasp claims --preset cpu --seeds 3
Expect  5 to 15 points more with contact than from pose alone
"""

from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np

from jhand.claims import Claim
from jhand.contact import (
    HOGRASPNET_GRASPS,
    grasp_attributes,
    grasp_of_type,
    grasp_type,
    grasping_skin,
    gripped_part,
    sample_solid,
    solid_distance,
)
from jhand.data.made import Made
from jhand.experiment import Batch, Experiment, Preset, main
from jhand.geometry import invert_transform, so3_exp, transform
from jhand.hand import HandModel, HandParams, forward, load_hand, pose_from_angles
from jhand.systems import hograspnet_grasp as system

GRASPS = (1, 4, 17, 31, 18, 16, 23, 25, 9, 14, 7, 12, 22)
"""Of the taxonomy's types, those whose attributes or ways to close differ most."""
YAWS = np.array([-1.2, -0.4, 0.4, 1.2], np.float32)
"""Radians, of the four cameras around the table."""


@dataclass(frozen=True)
class Scene:
    """How many there are of what, and how wrong estimates are."""

    grasps: tuple[int, ...] = GRASPS
    subjects: int = 99
    objects: int = 30
    noise: float = 0.006
    """Of estimated keypoints, metres; three times that along the view."""
    contact_noise: float = 0.003
    """Of distances from the object, metres, the same over a part of a finger."""
    reach: float = 0.005


def example(key: jax.Array, scene: Scene) -> Batch:
    """Hands of subjects who hold objects by a type of the taxonomy, as one of four cameras sees them."""
    with jax.ensure_compile_time_eval():  # read once, not traced
        hand = load_hand()
        skin = grasping_skin(hand)
    keys = jax.random.split(key, 9)
    grasp = jax.random.choice(keys[0], jnp.asarray(scene.grasps))
    subject = jax.random.randint(keys[1], (), 0, scene.subjects)
    thing = jax.random.randint(keys[2], (), 1, scene.objects + 1)
    camera = jax.random.randint(keys[3], (), 0, len(YAWS))
    # subjects and objects are the same whenever they come
    own = jax.random.fold_in(jax.random.key(100), subject)
    betas = jnp.clip(1.3 * jax.random.normal(own, (hand.num_betas,)), -2.5, 2.5)
    size = jax.random.uniform(own, minval=0.82, maxval=1.15)
    solid = gripped_part(sample_solid(jax.random.fold_in(jax.random.key(200), thing)), grasp)
    held = grasp_of_type(keys[4], hand, betas, skin, solid, grasp)
    mesh = forward(hand, HandParams(jnp.zeros(3), pose_from_angles(hand, held.angles), betas, jnp.zeros(3)))
    wrist = mesh.keypoints[0]
    away = solid_distance(solid, transform(invert_transform(held.T_wrist_object), mesh.vertices - wrist))
    of_part = (scene.contact_noise * jax.random.normal(keys[5], (16,)))[jnp.argmax(hand.weights, -1)]
    contact = jnp.clip(1 - (away + of_part) / scene.reach, 0, 1)
    # the table's axes, then the camera's
    turn = so3_exp(0.4 * jax.random.normal(keys[6], (3,)))
    view = so3_exp(jnp.array([0.0, 1.0, 0.0]) * jnp.asarray(YAWS)[camera])
    R = jnp.matmul(view, turn, precision="highest")
    points = size * jnp.einsum("ij,kj->ki", R, mesh.keypoints - wrist, precision="highest")
    points = points + scene.noise * jnp.array([1.0, 1.0, 3.0]) * jax.random.normal(keys[7], points.shape)
    return {
        "keypoints3d": points,
        "contact": contact,
        "grasp": grasp,
        "subject": subject,
        "object": thing,
        "camera": camera,
    }


def tested(score):
    """A score of the examples that the split tests on."""
    return lambda outputs, batch, hand: jnp.where(outputs.tested, score(outputs, batch), jnp.nan)


def named(outputs: system.Outputs, batch: Batch) -> jax.Array:
    """1 where the type is right."""
    return (outputs.grasp == batch["grasp"]).astype(jnp.float32)


def of_power(power: str):
    """The same, of types of one power."""
    types = np.array([number for number in HOGRASPNET_GRASPS if grasp_type(number).power == power])
    return lambda outputs, batch: jnp.where(jnp.isin(batch["grasp"], types), named(outputs, batch), jnp.nan)


def attributes(outputs: system.Outputs, batch: Batch) -> jax.Array:
    """The share of attributes that are right."""
    return system.right_attributes(outputs.grasp, batch["grasp"])


def most_common(sample: Batch, hand: HandModel):
    """The trivial answer: a type whose attributes are the most common ones, or nearest to them."""
    table = grasp_attributes(GRASPS)
    seen = grasp_attributes(np.asarray(sample["grasp"]))
    best = GRASPS[int(np.argmax([(seen == row).mean() for row in table]))]

    def answer(batch: Batch) -> system.Outputs:
        number = len(batch["grasp"])
        every = jnp.ones(number, bool)
        return system.Outputs(jnp.zeros((number, len(GRASPS))), jnp.full(number, best), every)

    return answer


METRICS = {
    "accuracy": tested(named),
    "attributes": tested(attributes),
    **{f"accuracy_{power}": tested(of_power(power)) for power in ("power", "intermediate", "precision")},
}
READS = {
    "both": {},
    "pose": {"reads": ("pose",)},
    "contact": {"reads": ("contact",)},
}
SPLITS = {"s0": {}, **{f"s{n}": {"split": f"s{n}"} for n in range(1, 5)}}


def claim(name, statement, metric, ours, ablation, expected=None, primary=False) -> Claim:
    variants = READS | SPLITS
    sides = {side: variants[side] for side in (ours, ablation)}
    return Claim(
        name, statement, metric, sides, (ours, ablation), lower_is_better=False, expected=expected, primary=primary
    )


experiment = Experiment(
    system=system,
    presets={
        "cpu": Preset(
            system.Config.tiny(classes=GRASPS), Made(example, Scene()), steps=1000, batch=128, clips=5120, held_out=2048
        ),
        "gpu": Preset(
            system.Config.small(),
            Made(example, Scene(HOGRASPNET_GRASPS)),
            steps=20_000,
            batch=512,
            clips=200_000,
            held_out=16_384,
        ),
        "paper": Preset(
            system.Config.paper(),
            Made(example, Scene(HOGRASPNET_GRASPS)),
            steps=100_000,
            batch=512,
            clips=1_500_000,
            held_out=65_536,
        ),
    },
    metrics=METRICS,
    units=dict.fromkeys(METRICS, ("%", 100.0)),
    baseline=most_common,
    claims=[
        claim("contact", "where a hand touches tells its grasp", "accuracy", "both", "pose", (0.06, 0.3),
              primary=True),
        claim("pose", "and the pose, beside where it touches", "accuracy", "both", "contact"),
        claim("subjects", "unseen subjects are harder than unseen trials", "attributes", "s0", "s1"),
        claim("cameras", "an unseen camera is harder than unseen trials", "attributes", "s0", "s2"),
        claim("objects_subjects", "unseen objects are harder than unseen subjects", "attributes", "s1", "s3"),
        claim("objects_cameras", "unseen objects are harder than an unseen camera", "attributes", "s2", "s3"),
        claim("grasps", "unseen grasp types are harder than unseen objects", "attributes", "s3", "s4"),
    ],
    stand_ins=("estimated keypoints and contact are true ones with noise, not a network's",),
)  # fmt: skip

if __name__ == "__main__":
    main(experiment)
