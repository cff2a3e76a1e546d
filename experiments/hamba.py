"""Hamba: a graph-guided bidirectional scan over 21 joint tokens instead of attention over all patches.

Claims  the full head against itself without the graph, in one direction, without the scan, without its sampler and its
        branches, and against attention on all patches, which is HaMeR's head; Dong et al., NeurIPS 2024, table 4
Shows   PA-MPJPE of held-out renders of the synthetic world: hands of all shapes, poses and skins that show their palm
        (gpu: any side), partly hidden
Cost    cpu: 25 minutes of pretraining, then about 5 minutes a variant and seed, on two busy cores; gpu: not run yet
Command python -m experiments.hamba claims --preset cpu --seeds 5
Expect  2 to 10 % lower than each ablation
"""

import jax
import numpy as np

from jhand import metrics
from jhand.claims import Claim
from jhand.data.augmentation import Augmentation, augment, crop_to_hand
from jhand.data.pipeline import Clip
from jhand.data.world import single_hand
from jhand.data.world.cameras import facing, upright
from jhand.experiment import Batch, Experiment, Preset, main, mean_hand
from jhand.hand import HandModel, HandParams, forward
from jhand.systems import hamba

# Fewer parameters where something is taken away: the MLPs of the blocks make up for them, within 2 % of the whole
HEADS = {
    "full": {},
    "no_graph": {"graph": False, "mlp_ratio": 24.75},
    "one_way": {"directions": 1, "mlp_ratio": 4.5},
    "no_scan": {"scan": False, "mlp_ratio": 6.25},
    "attention": {"head": "attention", "blocks": 6, "mlp_ratio": 5.5},
}
LADDER = {
    "full": {},
    "no_sampler": {"sampler": False},
    "no_global": {"branches": ("scanned", "joints", "sampled")},
    "no_scanned": {"branches": ("joints", "global", "sampled")},
    "no_joints": {"branches": ("scanned", "global", "sampled")},
}


def pa_mpjpe(outputs: hamba.Outputs, batch: Batch, hand: HandModel) -> jax.Array:
    return metrics.pa_mpjpe(outputs.keypoints, batch["keypoints3d"], batch["keypoints3d_valid"])


def vertices(batch: Batch, hand: HandModel) -> jax.Array:
    """Of the true hands, each about its own wrist."""
    params = HandParams(batch["global_orient"], batch["hand_pose"], batch["betas"], 0 * batch["global_orient"])
    return forward(hand, params).vertices


def pa_mpvpe(outputs: hamba.Outputs, batch: Batch, hand: HandModel) -> jax.Array:
    truth = vertices(batch, hand)
    found = forward(hand, outputs.params).vertices
    return metrics.pa_mpvpe(jax.numpy.broadcast_to(found, truth.shape), truth)


def claim(name: str, statement: str, ablation: str, expected: tuple[float, float], primary: bool = False) -> Claim:
    variants = HEADS | LADDER
    sides = {side: variants[side] for side in ("full", ablation)}
    return Claim(name, statement, "pa_mpjpe", sides, ("full", ablation), expected=expected, primary=primary)


def crop(clip: Clip, config: hamba.Config) -> Clip:
    """The world's pictures as they are, others cropped to the hand and turned as those are."""
    whole = clip["image"].shape[2:4] == (config.size, config.size)
    return clip if whole else crop_to_hand(clip, "right", config.size, 1.5, upright=True)


def changed(clip: Clip, rng: np.random.Generator) -> Clip:
    """Turned by up to 30 degrees, scaled by up to 0.3, coloured by up to 0.2; never mirrored."""
    settings = Augmentation(turn=0.26, scale=0.15, shift=0.04, colour=0.1, blur=0.0, noise=0.0, occlude=0.0)
    return augment(clip, rng, settings)


experiment = Experiment(
    system=hamba,
    presets={
        "cpu": Preset(
            hamba.Config.tiny(),
            single_hand(64, camera=facing, samples=1, occluded=0.15),
            steps=1500,
            batch=32,
            clips=30_000,
            pretraining=8000,
        ),
        "gpu": Preset(
            hamba.Config.small(),
            single_hand(128, camera=upright, at_once=64),
            steps=40_000,
            batch=256,
            clips=None,
            pretraining=20_000,
        ),
        "paper": Preset(
            hamba.Config.paper(), single_hand(256, camera=upright, at_once=64), steps=600_000, batch=256, clips=None
        ),
    },
    metrics={"pa_mpjpe": pa_mpjpe, "pa_mpvpe": pa_mpvpe},
    units={"pa_mpjpe": ("mm", 1000.0), "pa_mpvpe": ("mm", 1000.0)},
    baseline=mean_hand,
    crop=crop,
    augment=changed,
    claims=[
        claim("graph", "joint tokens need their skeleton", "no_graph", (0.05, 0.10), primary=True),
        claim("both_ways", "tokens are scanned in both directions, not in one", "one_way", (0.04, 0.05)),
        claim("scan", "graph convolutions alone do not do what the scan does", "no_scan", (0.05, 0.10)),
        claim("few_tokens", "22 tokens do better than attention on all patches", "attention", (0.0, 0.10)),
        claim("sampler", "tokens are to be taken where the hand is thought to be", "no_sampler", (0.02, 0.04)),
        claim("global_branch", "the heads need the global mean", "no_global", (0.05, 0.10)),
        claim("scanned_branch", "the heads need the scanned tokens", "no_scanned", (0.03, 0.06)),
        claim("joints_branch", "the heads need the first joints", "no_joints", (0.02, 0.04)),
    ],
    stand_ins=(
        "a small residual network (cpu), a small ViT (gpu), trained here before, for ViT-H with HaMeR's weights",
    ),
)

if __name__ == "__main__":
    main(experiment)
