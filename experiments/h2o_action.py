"""H2O's TA-GCN: which action two hands and an object do, by graphs whose edges between all three are learned.

Claims  edges between hands and object against edges within each, and against the given skeletons alone; the object's
        nodes tell more than a hand's; training on estimated points helps on estimated points; Kwon et al., ICCV 2021
Shows   accuracy of 18 actions told by relations alone (jhand.data.object_actions), of people never trained on; how much
        hands and object hear each other
Cost    cpu: about 10 minutes of one core a variant and seed; gpu: not run yet
Command python -m experiments.h2o_action claims --preset cpu --seeds 3
Expect  4 to 10 points more than with the given skeletons
"""

import jax
import jax.numpy as jnp
import numpy as np

from jhand.claims import Claim
from jhand.data.made import Made
from jhand.data.object_actions import ACTIONS, ActionScene, object_action
from jhand.experiment import Batch, Experiment, Preset, main
from jhand.hand import HandModel
from jhand.systems import h2o_action as system

VARIANTS = {
    "full": {},
    "within": {"between": False},
    "given": {"learned": False, "computed": False},
    "no_computed": {"computed": False},
    "no_class": {"object_class": False},
    "no_object": {"without": "object", "object_class": False},
    "no_left": {"without": "left", "object_class": False},
    "estimated": {"tested": "estimated"},
    "trained_on_estimates": {"tested": "estimated", "trained": "estimated"},
}


def accuracy(outputs: system.Outputs, batch: Batch, hand: HandModel) -> jax.Array:
    """1 where the action is right."""
    return (jnp.argmax(outputs.logits, -1) == batch["action"]).astype(jnp.float32)


def verb(outputs: system.Outputs, batch: Batch, hand: HandModel) -> jax.Array:
    """1 where the verb is right, whichever hand and end."""
    of = np.array([name.split(",")[0] for name in ACTIONS])
    same = jnp.asarray(of[:, None] == of)
    return same[jnp.argmax(outputs.logits, -1), batch["action"]].astype(jnp.float32)


def to_the_object(outputs: system.Outputs, batch: Batch, hand: HandModel) -> jax.Array:
    """How much hands and object hear each other by learned edges, over how much the hands do; NaN without such."""
    t = outputs.topology
    with_object = (t[:, 0, 2] + t[:, 1, 2] + t[:, 2, 0] + t[:, 2, 1]) / 4
    between_hands = (t[:, 0, 1] + t[:, 1, 0]) / 2
    return jnp.where(between_hands > 0, with_object / jnp.where(between_hands > 0, between_hands, 1), jnp.nan)


def most_common(sample: Batch, hand: HandModel):
    """The trivial answer: the action that there is most of in training."""
    best = np.bincount(np.asarray(sample["action"]), minlength=len(ACTIONS)).argmax()

    def answer(batch: Batch) -> system.Outputs:
        number = len(batch["action"])
        return system.Outputs(
            jnp.broadcast_to(jax.nn.one_hot(best, len(ACTIONS)), (number, len(ACTIONS))), jnp.ones((number, 3, 3))
        )

    return answer


def claim(name: str, statement: str, full: str, ablation: str, **more):
    sides = {side: VARIANTS[side] for side in (full, ablation)}
    return Claim(name, statement, "accuracy", sides, (full, ablation), lower_is_better=False, **more)


def people(first: int, last: int, frames: int) -> Made:
    return Made(object_action, ActionScene(frames=frames, subjects=(first, last)))


experiment = Experiment(
    system=system,
    presets={
        "cpu": Preset(
            system.Config.tiny(),
            people(0, 30, 32),
            steps=1200,
            batch=32,
            clips=4096,
            held_out=1024,
            held_out_world=people(30, 40, 32),
            evaluate_every=1200,
        ),
        "gpu": Preset(
            system.Config.small(),
            people(0, 300, 64),
            steps=20_000,
            batch=64,
            clips=60_000,
            held_out=4096,
            held_out_world=people(300, 400, 64),
            evaluate_every=10_000,
        ),
        "paper": Preset(
            system.Config.paper(classes=len(ACTIONS)),
            people(0, 300, 128),
            steps=80_000,
            batch=64,
            clips=100_000,
            held_out=4096,
            held_out_world=people(300, 400, 128),
            evaluate_every=20_000,
        ),
    },
    metrics={"accuracy": accuracy, "verb": verb, "to_the_object": to_the_object},
    units={"accuracy": ("%", 100.0), "verb": ("%", 100.0), "to_the_object": ("", 1.0)},
    baseline=most_common,
    claims=[
        claim(
            "topology",
            "learned edges within and between hands and object tell more than their skeletons",
            "full",
            "given",
            expected=(0.04, 0.1),
            primary=True,
        ),
        claim("between", "edges between them tell more than edges within each", "full", "within", expected=(0.0, 0.1)),
        claim("within", "learned edges within each tell more than their skeletons", "within", "given"),
        claim("computed", "edges computed from the sequence add to those learned", "full", "no_computed"),
        claim("object_class", "what the object is helps, though it says little of these actions", "full", "no_class"),
        claim("object", "the object's nodes are missed more than a hand's", "no_left", "no_object"),
        claim("estimates", "training on estimated points helps on these", "trained_on_estimates", "estimated"),
    ],
    stand_ins=("made motions, for H2O's recordings", "noise that is in part slow, for a pose network's estimates"),
)

if __name__ == "__main__":
    main(experiment)
