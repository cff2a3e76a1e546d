"""Any dataset by a name: `world:single_hand`, `freihand:/data/FreiHAND:training`, `records:/data/mine`."""

from jhand.data.clip import ClipError
from jhand.data.pipeline import Source
from jhand.data.records import ClipRecords

SOURCES = {
    "world": "world:<which>, one of single_hand, two_hands, grasps, egocentric; :<number of clips>, :<seed>, :<size>",
    "freihand": "freihand:<folder>:<training or evaluation>; :<MANO_RIGHT file> for parameters",
    "interhand": "interhand:<folder>:<train, val or test>; :<MANO_RIGHT file>:<MANO_LEFT file> for parameters",
    "records": "records:<file or folder of .array_record>",
}
"""What names may look like; what follows a semicolon may be left out."""


def open_source(name: str) -> Source:
    """Clips of any dataset, by its name on a command line (`--data`).

    Args:
        name: as `SOURCES` says.

    Raises:
        ClipError: another name, or a dataset that is not there.
    """
    kind, *rest = name.split(":")
    if kind not in SOURCES or not rest:
        raise ClipError(f"data {name!r}: expected one of\n  " + "\n  ".join(SOURCES.values()))
    if kind == "records":
        return ClipRecords(":".join(rest))
    if kind == "world":
        from jhand.data.world.datasets import WORLDS, cached_world

        which, *numbers = rest
        if which not in WORLDS or len(numbers) > 3 or not all(n.isdigit() for n in numbers):
            raise ClipError(f"data {name!r}: expected {SOURCES['world']}")
        number, seed, size = (int(given) for given in (*numbers, *("2000", "0", "64")[len(numbers) :]))
        return cached_world(WORLDS[which](size=size), seed, number)
    folder, split, *files = (*rest, "training" if kind == "freihand" else "train")[: max(len(rest), 2)]
    from jhand.hand.files import load_hand

    hands = tuple(load_hand(path) for path in files)
    if kind == "freihand":
        from jhand.data.readers.freihand import FreiHAND

        return FreiHAND(folder, split, hands[0] if hands else None)
    from jhand.data.readers.interhand import InterHand

    if len(hands) not in (0, 2):
        raise ClipError(f"data {name!r}: expected {SOURCES['interhand']}")
    return InterHand(folder, split, (hands[0], hands[1]) if hands else None)
