"""Pose Anything: keypoints of things never trained on, by annotated pictures and a skeleton.

Claims  feed-forward layers along the skeleton against plain ones of as many parameters, on all keypoints, on those
        that are hidden and on those of mirrored pairs; the given skeleton against all joined to all and against that of
        other keypoints; five annotated pictures against one; Hirschorn & Avidan, ECCV 2024, tables 1 and 3
Shows   PCK at 0.2 of the longer side of the keypoints' box, on creatures of categories never trained on, a hand among
        them (jhand.data.creatures); also other thresholds, mean errors, and the hand by itself
Cost    cpu: about 6 minutes of one core a variant and seed; gpu: not run yet
Command python -m experiments.poseanything claims --preset cpu --seeds 3
Expect  1 to 3 points more with a graph
"""

from dataclasses import replace

import jax
import jax.numpy as jnp

from jhand import metrics
from jhand.claims import Claim
from jhand.data.creatures import CreatureScene, creature_episode
from jhand.data.made import Made
from jhand.experiment import Batch, Experiment, Preset, main
from jhand.hand import HandModel
from jhand.systems import poseanything

HELD_OUT = 10
"""Categories never trained on, the first ones: the hand, and nine trees."""
TRAINED = 24
SHARES = jnp.array([0.05, 0.1, 0.15, 0.2, 0.25])
"""Of the box, that `auc` is a mean over."""
VARIANTS = {
    "full": {},
    "no_graph": {"graph": False},
    "complete": {"skeleton": "complete"},
    "shuffled": {"skeleton": "shuffled"},
    "five": {"shots": 5},
}


def in_boxes(outputs: poseanything.Outputs, batch: Batch) -> tuple[jax.Array, jax.Array]:
    """Found and true keypoints, (B, K, 2), in longer sides of the box of the true ones."""
    truth, valid = batch["query_points"], batch["keypoints_valid"]
    low = jnp.min(jnp.where(valid[..., None], truth, jnp.inf), 1)
    high = jnp.max(jnp.where(valid[..., None], truth, -jnp.inf), 1)
    side = jnp.max(high - low, -1)[:, None, None]
    return outputs.points / side, truth / side


def pck_at(share: float, of: str | None = None):
    """Keypoints nearer than a share of the box, of all or of those that an entry of the batch says."""

    def pck(outputs: poseanything.Outputs, batch: Batch, hand: HandModel) -> jax.Array:
        counts = batch["keypoints_valid"] if of is None else batch[of] & batch["keypoints_valid"]
        return metrics.pck(*in_boxes(outputs, batch), counts, jnp.array([share]))[..., 0]

    return pck


def pck_of_hands(outputs: poseanything.Outputs, batch: Batch, hand: HandModel) -> jax.Array:
    return jnp.where(batch["category"] == 0, pck_at(0.2)(outputs, batch, hand), jnp.nan)


def auc(outputs: poseanything.Outputs, batch: Batch, hand: HandModel) -> jax.Array:
    """Mean of PCK at 0.05, 0.1, 0.15, 0.2 and 0.25."""
    return jnp.mean(metrics.pck(*in_boxes(outputs, batch), batch["keypoints_valid"], SHARES), -1)


def nme(outputs: poseanything.Outputs, batch: Batch, hand: HandModel) -> jax.Array:
    return metrics.mpjpe(*in_boxes(outputs, batch), batch["keypoints_valid"])


def nme_of_proposals(outputs: poseanything.Outputs, batch: Batch, hand: HandModel) -> jax.Array:
    return nme(replace(outputs, points=outputs.proposals), batch, hand)


def as_annotated(sample: Batch, hand: HandModel):
    """The trivial answer: keypoints are where they were in the annotated picture."""

    def answer(batch: Batch) -> poseanything.Outputs:
        points = jnp.asarray(batch["support_points"])[:, 0]
        none = jnp.zeros((*points.shape[:-1], 1, 1))  # no likenesses
        return poseanything.Outputs(points, points, points[:, None], none)

    return answer


def claim(name: str, statement: str, ablation: str, metric: str = "pck", full: str = "full", **more):
    sides = {side: VARIANTS[side] for side in (full, ablation)}
    return Claim(name, statement, metric, sides, (full, ablation), lower_is_better=False, **more)


def creatures(first: int, last: int, **more) -> Made:
    return Made(creature_episode, CreatureScene(categories=tuple(range(first, last)), **more))


experiment = Experiment(
    system=poseanything,
    presets={
        "cpu": Preset(
            poseanything.Config.tiny(),
            creatures(HELD_OUT, HELD_OUT + TRAINED),
            steps=4000,
            batch=16,
            clips=12_000,
            held_out=512,
            held_out_world=creatures(0, HELD_OUT),
            evaluate_every=4000,
        ),
        "shots": Preset(
            poseanything.Config.tiny(),
            creatures(HELD_OUT, HELD_OUT + TRAINED, shots=5),
            steps=4000,
            batch=16,
            clips=6000,
            held_out=512,
            held_out_world=creatures(0, HELD_OUT, shots=5),
            evaluate_every=4000,
        ),
        "gpu": Preset(
            poseanything.Config.small(),
            creatures(HELD_OUT, HELD_OUT + 70, size=128, shots=5),
            steps=60_000,
            batch=64,
            clips=None,
            held_out=2048,
            held_out_world=creatures(0, HELD_OUT, size=128, shots=5),
            evaluate_every=20_000,
        ),
        "paper": Preset(
            poseanything.Config.paper(),
            creatures(HELD_OUT, HELD_OUT + 70, size=256, shots=5),
            steps=250_000,
            batch=16,
            clips=None,
            held_out=3000,
            held_out_world=creatures(0, HELD_OUT, size=256, shots=5),
            evaluate_every=50_000,
        ),
    },
    metrics={
        "pck": pck_at(0.2),
        "pck_hidden": pck_at(0.2, "hidden"),
        "pck_twin": pck_at(0.2, "twin"),
        "pck_hand": pck_of_hands,
        "pck_05": pck_at(0.05),
        "pck_10": pck_at(0.1),
        "auc": auc,
        "nme": nme,
        "nme_proposals": nme_of_proposals,
    },
    units=dict.fromkeys(
        ("pck", "pck_hidden", "pck_twin", "pck_hand", "pck_05", "pck_10", "auc", "nme", "nme_proposals"), ("%", 100.0)
    ),
    baseline=as_annotated,
    claims=[
        claim("graph", "tokens are to speak along the skeleton", "no_graph", expected=(0.01, 0.03), primary=True),
        claim("hidden", "most of all where keypoints are hidden", "no_graph", "pck_hidden", expected=(0.01, 0.1)),
        claim("twins", "and where limbs are mirrored", "no_graph", "pck_twin", expected=(0.01, 0.1)),
        claim("hands", "hands, a topology never trained on, gain, too", "no_graph", "pck_hand", expected=(0.0, 0.1)),
        claim("joined", "the skeleton says more than that all belong together", "complete", expected=(0.0, 0.03)),
        claim("right", "a skeleton of other keypoints misleads", "shuffled", expected=(0.0, 0.2)),
        claim(
            "shots",
            "five annotated pictures say more than one",
            "full",
            full="five",
            expected=(0.0, 0.05),
            presets=("shots", "gpu", "paper"),
        ),
    ],
    stand_ins=("a ViT that has seen nothing before, for Swin V2 from ImageNet", "creatures, for MP-100"),
)

if __name__ == "__main__":
    main(experiment)
