"""Score the fit on real recordings, with landmark sets and without: benchmarks/results/real_recordings.{json,md}.

    python benchmarks/real_recordings.py ../shared/data

The folder is laid out as `jhand.data.readers.open_recordings` reads it. Landmarks are learned on one part and frozen.
"""

import json
import sys
from pathlib import Path

import numpy as np

from jhand import studies
from jhand.hand.files import load_hand

OUT = Path(__file__).parent / "results"
STEP = 5  # every fifth frame of the markers: 20 a second


def main(folder: str) -> None:
    hand = load_hand()
    results: dict[str, dict] = {"landmark sets": {}, "plain joints": {}, "mocap": {}}

    def keep(part: str, name: str, scores: dict) -> None:
        """What was measured is on disk before the next is begun."""
        results[part][name] = scores
        print(part, name, scores, flush=True)
        (OUT / "real_recordings.json").write_text(json.dumps(results, indent=1) + "\n")

    OUT.mkdir(exist_ok=True)
    for part in ("landmark sets", "plain joints"):
        learn = part == "landmark sets"
        for study in (studies.quest(hand, folder, learn=learn), studies.hand_video(hand, folder, learn=learn)):
            keep(part, study.recording.name, study.scores)
        for study in studies.leap(hand, folder, learn=learn):
            keep(part, study.recording.name, study.scores)
    attached = studies.attach_hand_markers(hand, folder)
    keep("mocap", "all markers", studies.mocap(hand, attached, step=STEP).scores)
    for name in attached.recording.names:
        if name.endswith("_middle"):
            misses = {
                "hand": studies.hidden_marker(hand, attached, name, step=STEP),
                "hand of wrong shape": studies.hidden_marker(hand, attached, name, betas=attached.betas + 3, step=STEP),
                "rigid constellation": studies.hidden_marker_rigid(attached, name, step=STEP),
            }
            summary = {k: {"mean": float(v.mean()), "p95": float(np.percentile(v, 95))} for k, v in misses.items()}
            keep("mocap", name, summary)
    (OUT / "real_recordings.md").write_text(table(results))
    print(table(results))


def table(results: dict) -> str:
    lines = [
        "| recording, mm | landmark sets: mean | p95 | largest beta | plain joints: mean | p95 | largest beta |",
        "|---|" + "---|" * 6,
    ]
    for name, a in results["landmark sets"].items():
        b = results["plain joints"][name]
        numbers = (a["mean"], a["p95"], a["max_beta"], b["mean"], b["p95"], b["max_beta"])
        lines.append(f"| {name} | " + " | ".join(f"{x:.2f}" for x in numbers) + " |")
    m = results["mocap"]
    every = m["all markers"]
    lines += [
        "",
        f"Markers after attaching, all: mean {every['mean']:.2f} mm, p95 {every['p95']:.2f} mm.",
        "",
    ]
    lines += ["| hidden marker, mm | hand: mean | p95 | wrong shape: mean | rigid: mean |", "|---|---|---|---|---|"]
    hidden = {name: row for name, row in m.items() if name != "all markers"}
    for name, row in hidden.items():
        numbers = (
            row["hand"]["mean"],
            row["hand"]["p95"],
            row["hand of wrong shape"]["mean"],
            row["rigid constellation"]["mean"],
        )
        lines.append(f"| {name} | " + " | ".join(f"{x:.2f}" for x in numbers) + " |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main(sys.argv[1] if len(sys.argv) > 1 else "../shared/data")
