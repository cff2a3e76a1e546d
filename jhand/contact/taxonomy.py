"""The 33 grasp types of Feix et al. (The GRASP taxonomy of human grasp types, IEEE THMS 2016): what tells them apart.

A type has a power, intermediate or precision grip; an opposition of palm, pad or side, the direction in which hand and
thumb press on the object; the fingers that press against the thumb or palm; and a thumb that is abducted, to oppose the
fingers, or adducted, beside them.
"""

from collections.abc import Sequence
from typing import Literal, NamedTuple

import numpy as np

Power = Literal["power", "intermediate", "precision"]
Opposition = Literal["palm", "pad", "side"]
Thumb = Literal["abducted", "adducted"]


class GraspType(NamedTuple):
    """One row of the taxonomy."""

    id: int
    """Its number, 1 to 33."""
    name: str
    power: Power
    opposition: Opposition
    fingers: tuple[int, ...]
    """Those of the second virtual finger: 2 the index finger to 5 the little finger."""
    thumb: Thumb


def _rows() -> tuple[GraspType, ...]:
    all_four, three, two, index = (2, 3, 4, 5), (2, 3, 4), (2, 3), (2,)
    return tuple(
        GraspType(*row)
        for row in (
            (1, "large diameter", "power", "palm", all_four, "abducted"),
            (2, "small diameter", "power", "palm", all_four, "abducted"),
            (3, "medium wrap", "power", "palm", all_four, "abducted"),
            (4, "adducted thumb", "power", "palm", all_four, "adducted"),
            (5, "light tool", "power", "palm", all_four, "adducted"),
            (6, "prismatic 4 finger", "precision", "pad", all_four, "abducted"),
            (7, "prismatic 3 finger", "precision", "pad", three, "abducted"),
            (8, "prismatic 2 finger", "precision", "pad", two, "abducted"),
            (9, "palmar pinch", "precision", "pad", index, "abducted"),
            (10, "power disk", "power", "palm", all_four, "abducted"),
            (11, "power sphere", "power", "palm", all_four, "abducted"),
            (12, "precision disk", "precision", "pad", all_four, "abducted"),
            (13, "precision sphere", "precision", "pad", all_four, "abducted"),
            (14, "tripod", "precision", "pad", two, "abducted"),
            (15, "fixed hook", "power", "palm", all_four, "adducted"),
            (16, "lateral", "intermediate", "side", index, "adducted"),
            (17, "index finger extension", "power", "palm", (3, 4, 5), "adducted"),
            (18, "extension type", "power", "pad", all_four, "abducted"),
            (19, "distal type", "power", "pad", all_four, "abducted"),
            (20, "writing tripod", "precision", "side", (3,), "abducted"),
            (21, "tripod variation", "intermediate", "side", (3, 4), "abducted"),
            (22, "parallel extension", "precision", "pad", all_four, "adducted"),
            (23, "adduction grip", "intermediate", "side", index, "abducted"),
            (24, "tip pinch", "precision", "pad", index, "abducted"),
            (25, "lateral tripod", "intermediate", "side", (3,), "adducted"),
            (26, "sphere 4 finger", "power", "pad", three, "abducted"),
            (27, "quadpod", "precision", "pad", three, "abducted"),
            (28, "sphere 3 finger", "power", "pad", two, "abducted"),
            (29, "stick", "intermediate", "side", index, "adducted"),
            (30, "palmar", "power", "palm", all_four, "adducted"),
            (31, "ring", "power", "pad", index, "abducted"),
            (32, "ventral", "intermediate", "side", index, "adducted"),
            (33, "inferior pincer", "precision", "pad", index, "abducted"),
        )
    )


GRASP_TYPES: tuple[GraspType, ...] = _rows()
"""In the order of their numbers."""

HOGRASPNET_GRASPS: tuple[int, ...] = (
    *(1, 2, 17, 18, 22, 30, 3, 4, 5, 19, 31, 10, 11, 26, 28, 16, 29, 23, 20, 25, 9, 24, 33, 7, 12, 13, 27, 14),
)
"""Numbers of the 28 types that HOGraspNet (Cho et al., ECCV 2024) has, in the order of its class indices."""


def grasp_type(number: int) -> GraspType:
    """A row by its number.

    Raises:
        ValueError: no number from 1 to 33.
    """
    if not 1 <= number <= len(GRASP_TYPES):
        raise ValueError(f"number: expected a grasp type from 1 to {len(GRASP_TYPES)}, got {number}")
    return GRASP_TYPES[number - 1]


def grasp_attributes(numbers: Sequence[int]) -> np.ndarray:
    """What tells grasp types apart, as numbers, so that types can be compared.

    Returns:
        (N, 4) int32: 0 power, 1 intermediate, 2 precision; opposition of 0 palm, 1 pad, 2 side; how many fingers press;
        1 where the thumb is adducted.
    """
    rows = [grasp_type(int(number)) for number in numbers]
    power, opposition = ("power", "intermediate", "precision"), ("palm", "pad", "side")
    return np.array(
        [
            (power.index(row.power), opposition.index(row.opposition), len(row.fingers), int(row.thumb == "adducted"))
            for row in rows
        ],
        np.int32,
    ).reshape(-1, 4)
