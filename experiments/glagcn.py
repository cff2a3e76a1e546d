"""GLA-GCN: a hand's motion in 3D from 2D keypoints, by adaptive graphs, a pyramid in time and a readout of each joint.

Claims  each joint read from its own channels against all joints' channels together; graphs that are learned and
        computed against the skeleton alone; longer windows against shorter ones; the pyramid against a mean over time;
        Yu et al., ICCV 2023
Shows   MPJPE about the wrist, after the best scale, after Procrustes, of velocities, on every frame of sequences of the
        world's motion (jhand.data.moving_hands) from exact keypoints, before cameras on any side or, in the small
        presets, before the palm; `noisy`: from keypoints 4 pixels off; `few`: from a tenth of the sequences
Cost    cpu: about 2 minutes of one core a variant and seed; gpu: not run yet
Command python -m experiments.glagcn claims --preset cpu --seeds 3
Expect  3 to 10 % lower for the readout; 3 to 8 % lower for the graphs, which is our ablation
"""

from dataclasses import replace

import jax
import jax.numpy as jnp

from jhand import metrics
from jhand.claims import Claim
from jhand.data.made import Made
from jhand.data.moving_hands import MotionScene, moving_hand
from jhand.data.world.cameras import facing
from jhand.experiment import Batch, Experiment, Preset, main
from jhand.hand import HandModel
from jhand.systems import glagcn

FPS = 30.0
VARIANTS = {
    "full": {},
    "global": {"readout": "global"},
    "shared": {"readout": "shared"},
    "skeleton": {"learned": False, "computed": False},
    "not_computed": {"computed": False},
    "frames_1": {"widths": ()},
    "frames_9": {"widths": (3, 3)},
    "frames_27": {"widths": (3, 3, 3)},
    "no_pyramid": {"pyramid": False},
}


def _over_frames(metric):
    """The mean of a metric of hands over the frames of each sequence."""
    return lambda outputs, batch, hand: jnp.nanmean(
        metric(outputs.keypoints, batch["keypoints3d"], batch["keypoints3d_valid"]), -1
    )


def mpjve(outputs: glagcn.Outputs, batch: Batch, hand: HandModel) -> jax.Array:
    return metrics.mpjve(outputs.keypoints, batch["keypoints3d"], FPS, batch["keypoints3d_valid"])


def one_pose(sample: Batch, hand: HandModel):
    """The trivial answer: the mean of all hands about their wrists, whatever is seen."""
    mean = jnp.mean(jnp.asarray(sample["keypoints3d"]), (0, 1))
    return lambda batch: glagcn.Outputs(jnp.broadcast_to(mean, batch["keypoints3d"].shape))


def claim(name: str, statement: str, ours: str, ablation: str, expected: tuple[float, float], **more) -> Claim:
    sides = {side: VARIANTS[side] for side in (ours, ablation)}
    return Claim(name, statement, "mpjpe", sides, (ours, ablation), expected=expected, **more)


SHOWN = MotionScene(fps=FPS, camera=facing)
"""Hands that at first show their palm, as people who use a camera do: what few steps are enough to learn."""
CPU = Preset(
    glagcn.Config.tiny(),
    Made(moving_hand, SHOWN),
    steps=600,
    batch=32,
    clips=2048,
    held_out=32,
    evaluate_every=600,
)

experiment = Experiment(
    system=glagcn,
    presets={
        "cpu": CPU,
        "noisy": replace(CPU, world=Made(moving_hand, replace(SHOWN, noise=4.0))),
        "few": replace(CPU, clips=205),
        "gpu": Preset(
            glagcn.Config.small(),
            Made(moving_hand, MotionScene(frames=162, fps=FPS)),
            steps=30_000,
            batch=256,
            clips=32_768,
            held_out=256,
            evaluate_every=5000,
        ),
        "paper": Preset(
            glagcn.Config.paper(),
            Made(moving_hand, MotionScene(frames=243, fps=FPS)),
            steps=240_000,
            batch=512,
            clips=None,
            held_out=512,
            evaluate_every=24_000,
        ),
    },
    metrics={
        "mpjpe": _over_frames(metrics.mpjpe),
        "n_mpjpe": _over_frames(metrics.scale_aligned_mpjpe),
        "pa_mpjpe": _over_frames(metrics.pa_mpjpe),
        "auc": _over_frames(metrics.pck_auc),
        "mpjve": mpjve,
    },
    units={
        **dict.fromkeys(("mpjpe", "n_mpjpe", "pa_mpjpe"), ("mm", 1000.0)),
        "auc": ("%", 100.0),
        "mpjve": ("mm/s", 1000.0),
    },
    baseline=one_pose,
    claims=[
        claim("readout", "each joint is to be read from its own channels", "full", "global", (0.03, 0.1), primary=True),
        claim(
            "graphs", "graphs are to be learned and computed, not the skeleton alone", "full", "skeleton", (0.03, 0.08)
        ),
        claim("computed", "a graph is to be computed from each window", "full", "not_computed", (0.0, 0.08)),
        claim("frames_9", "9 frames do better than one", "frames_9", "frames_1", (0.0, 0.5)),
        claim("window", "27 frames do better than 9", "full", "frames_9", (0.0, 0.3), presets=("cpu", "noisy", "few")),
        claim("frames_27", "27 frames do better than 9", "frames_27", "frames_9", (0.0, 0.3), presets=("gpu", "paper")),
        claim("frames_81", "81 frames do better than 27", "full", "frames_27", (0.0, 0.2), presets=("gpu",)),
        claim("pyramid", "time is to be gone through in a pyramid, not averaged", "full", "no_pyramid", (0.0, 0.2)),
        claim("own_maps", "each joint is to have a readout of its own, not one for all", "full", "shared", (0.0, 0.1)),
    ],
    stand_ins=("motion of the synthetic world, before cameras, for Human3.6M's recordings of people",),
)

if __name__ == "__main__":
    main(experiment)
