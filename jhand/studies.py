"""Real recordings through the fit, by fixed protocols: what `jhand demo` runs and `benchmarks/real_recordings.py`
scores.

Landmark sets are learned on one part of a source's recordings, frozen, and scored on another.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from jhand.data.readers.open_recordings import (
    MarkerRecording,
    read_hand_markers,
    read_hand_video,
    read_leap,
    read_quest_poses,
)
from jhand.data.recording import Recording, clip_frames, make_recording
from jhand.fitting.calibrate import attach_markers, fit_landmarks
from jhand.fitting.measurements import FitSettings
from jhand.fitting.solver import Fit, fit_sequence
from jhand.hand.landmark_sets import LandmarkSet
from jhand.hand.model import HandModel
from jhand.track.fitted import TrackedHand, fit_tracked, learn_landmarks
from jhand.track.footage import Footage

_CLIPS = Path(__file__).parent / "data" / "assets" / "fingerspelling.npz"

UNRELATED = FitSettings(orient_rate=1e3, pose_rate=1e3, transl_rate=1e3)
"""For frames that do not follow each other."""
MARKERS = FitSettings(sigma_3d=0.001)
"""Optical markers are good to a millimetre on skin."""

LEAP_LEARNED = ("splay", "brian", "gun", "waiting")
LEAP_SCORED = ("pinch", "roll and pitch", "flapping", "paddle", "confidence-demo")
ATTACH_SECONDS = 10


@dataclass(frozen=True)
class Study:
    """One recording, its fit and what the fit was compared with."""

    recording: Recording | MarkerRecording
    fit: Fit
    errors: np.ndarray
    """(T, K), millimetres or pixels."""
    seen: np.ndarray
    """(T, K) bool: which errors count."""
    unit: str
    note: str

    @property
    def scores(self) -> dict[str, float]:
        """Mean, 95th percentile and largest error, and the largest shape coefficient."""
        counted = self.errors[self.seen]
        return {
            "mean": float(counted.mean()),
            "p95": float(np.percentile(counted, 95)),
            "max": float(counted.max()),
            "max_beta": float(np.abs(np.asarray(self.fit.params.betas)).max()),
        }


def fit_recording(
    hand: HandModel,
    recording: Recording,
    *,
    landmarks: LandmarkSet | None = None,
    settings: FitSettings | None = None,
    note: str = "",
) -> Study:
    """Fit one recording: its metres where it has them, else its pixels by scaled orthography.

    Args:
        hand: a model of the recording's side.
        recording: what was seen.
        landmarks: what its points are on this hand, by default the 21 keypoints.
        settings: sigmas and rates; by default 2 mm, or 1.5 % of the hand's size in the picture.
        note: shown in reports.

    Returns:
        The study; errors in millimetres or pixels.

    Raises:
        ValueError: a model of the other side.
    """
    if hand.side != recording.side:
        raise ValueError(f"{recording.name} shows a {recording.side} hand, the model is a {hand.side} one")
    seen = recording.confidence > 0
    if recording.keypoints3d is not None:
        found = fit_sequence(
            hand,
            keypoints3d=recording.keypoints3d,
            weights=recording.confidence,
            landmarks=landmarks,
            fps=recording.fps,
            settings=settings or FitSettings(),
        )
        return Study(recording, found, 1e3 * np.asarray(found.errors), seen, "mm", note)
    settings = settings or FitSettings(sigma_2d=0.015 * hand_size_2d(recording))
    found = fit_sequence(
        hand,
        keypoints2d=recording.keypoints2d,
        weights=recording.confidence,
        landmarks=landmarks,
        fps=recording.fps,
        settings=settings,
    )
    return Study(recording, found, np.asarray(found.errors), seen, "px", note or "scaled orthography, depth not scored")


def fit_footage(hand: HandModel, footage: Footage, tracked: TrackedHand, name: str) -> Study:
    """Fit a hand that was tracked in a photo or video, in the frame of its camera.

    Args:
        hand: a model of the hand's side.
        footage: where it was seen.
        tracked: one of its hands.
        name: shown in reports.

    Returns:
        The study; errors in pixels.
    """
    confidence = np.broadcast_to(tracked.score[:, None], (footage.num_frames, 21))
    recording = make_recording(
        name,
        side=tracked.side,
        fps=footage.fps,
        keypoints2d=tracked.keypoints2d,
        confidence=confidence,
        size=footage.size,
    )
    landmarks = learn_landmarks(hand, tracked, fps=footage.fps)
    found = fit_tracked(hand, tracked, footage.camera, fps=footage.fps, landmarks=landmarks)
    note = f"tracked; focal length {footage.focal:.0f} px, {_FOCAL_FROM[footage.focal_from]}"
    missed = int((~tracked.present).sum())
    if missed:
        note += f"; {missed} of {footage.num_frames} frames do not show the hand and are bridged"
    return Study(recording, found, np.asarray(found.errors), recording.confidence > 0, "px", note)


_FOCAL_FROM = {
    "given": "as given",
    "file": "from the file",
    "guess": "guessed from the picture's size: distances are as uncertain as it is",
}


def metres(recording: Recording) -> np.ndarray:
    """Keypoints (T, 21, 3) of a recording that has them."""
    if recording.keypoints3d is None:
        raise ValueError(f"{recording.name} has no keypoints in metres")
    return recording.keypoints3d


def hand_size_2d(recording: Recording) -> float:
    """Length of the hand in the picture, pixels: wrist to tip of the middle finger along its bones, in the frame that
    shows it longest.

    Frames foreshorten it, so the 95th percentile over frames is taken.
    """
    if recording.keypoints2d is None:
        raise ValueError(f"{recording.name} has no keypoints in a picture")
    chain = recording.keypoints2d[:, [0, 9, 10, 11, 12]]
    complete = (recording.confidence[:, [0, 9, 10, 11, 12]] > 0).all(-1)
    if not complete.any():
        spread = recording.keypoints2d[recording.confidence > 0]
        return float(np.ptp(spread, axis=0).max())
    length = np.linalg.norm(np.diff(chain, axis=1), axis=-1).sum(-1)
    return float(np.percentile(length[complete], 95))


def fingerspelling() -> list[Recording]:
    """The embedded clips of 24 fingerspelled letters (spoken-to-signed 0.4.0, MIT): MediaPipe landmarks in pixels."""
    clips = []
    with np.load(_CLIPS, allow_pickle=False) as z:
        for key in sorted(name[:-3] for name in z.files if name.endswith("/uv")):
            label, side, fps, width, height = (str(s) for s in z[f"{key}/about"])
            uv, seen = z[f"{key}/uv"].astype(np.float32) / float(z["scale"]), z[f"{key}/seen"]
            confidence = np.broadcast_to(seen[:, None].astype(np.float32), uv.shape[:2])
            clips.append(
                make_recording(
                    label,
                    side=side,
                    fps=float(fps),
                    keypoints2d=uv,
                    confidence=confidence,
                    size=(int(width), int(height)),
                )
            )
    return clips


def quest(hand: HandModel, folder: str | Path, *, learn: bool = True) -> Study:
    """Half of the Quest poses, with landmarks learned on the other half."""
    poses = read_quest_poses(folder)
    learned = clip_frames(poses, 0, poses.num_frames, 2)
    scored = replace(clip_frames(poses, 1, poses.num_frames, 2), name="Quest poses")
    landmarks = fit_landmarks(hand, metres(learned), settings=UNRELATED) if learn else None
    note = "landmarks learned on the other poses" if learn else "its joints taken for anatomical ones"
    return fit_recording(hand, scored, landmarks=landmarks, settings=UNRELATED, note=note)


def _evenly(recording: Recording, num: int) -> Recording:
    """At most `num` frames, evenly spaced."""
    return clip_frames(recording, 0, recording.num_frames, -(-recording.num_frames // num))


def leap(
    hand: HandModel,
    folder: str | Path,
    *,
    groups: Sequence[str] = LEAP_SCORED,
    learn: bool = True,
    num_frames: int = 200,
) -> list[Study]:
    """Groups of Leap recordings, with landmarks learned on other groups."""
    landmarks = None
    if learn:
        learned = [_evenly(read_leap(folder, group), 60) for group in LEAP_LEARNED]
        most = max(r.num_frames for r in learned)
        pad = lambda a: np.concatenate([a, np.zeros((most - len(a), *a.shape[1:]), a.dtype)])  # noqa: E731
        landmarks = fit_landmarks(
            hand,
            np.stack([pad(metres(r)) for r in learned]),
            weights=np.stack([pad(r.confidence) for r in learned]),
            settings=UNRELATED,
        )
    note = f"landmarks learned on {', '.join(LEAP_LEARNED)}" if learn else "its joints taken for anatomical ones"
    return [
        fit_recording(hand, _evenly(read_leap(folder, group), num_frames), landmarks=landmarks, note=note)
        for group in groups
    ]


def hand_video(hand: HandModel, folder: str | Path, *, learn: bool = True) -> Study:
    """The second half of the video's world landmarks, with landmarks learned on its first half."""
    video = read_hand_video(folder)
    half = video.num_frames // 2
    landmarks = fit_landmarks(hand, metres(clip_frames(video, 0, half)), fps=video.fps) if learn else None
    note = "landmarks learned on the first half" if learn else "MediaPipe's points taken for joints"
    return fit_recording(hand, clip_frames(video, half, video.num_frames), landmarks=landmarks, note=note)


def marker_guess(hand: HandModel, names: Sequence[str]) -> np.ndarray:
    """Rough places (K, 3) of the markers of `read_hand_markers` on the rest hand: over the bones they are named
    after.
    """
    joints, tips = np.asarray(hand.joint_basis[0]), np.asarray(hand.v_template)[list(hand.tips)]
    up = np.array([0.0, 0.008, 0.0])
    palm = joints[4] - joints[0]
    side = np.array([0.0, 0.0, 0.016])
    places = {
        "hand_top": joints[0] + 0.65 * palm + 2 * up,
        "hand_left": joints[0] + 0.15 * palm + 2.5 * up + side,
        "hand_right": joints[0] + 0.15 * palm + 2.5 * up - side,
        "thumb_middle": joints[15] + up,
        "thumb_tip": 0.4 * joints[15] + 0.6 * tips[0] + up,
    }
    for finger, knuckle, tip in (("index", 1, 1), ("middle", 4, 2), ("ring", 10, 3), ("little", 7, 4)):
        places[f"{finger}_middle"] = 0.3 * joints[knuckle] + 0.7 * joints[knuckle + 1] + up
        places[f"{finger}_tip"] = 0.5 * joints[knuckle + 2] + 0.5 * tips[tip] + up
    return np.stack([places[name] for name in names])


@dataclass(frozen=True)
class AttachedMarkers:
    """Markers and a shape learned on the first seconds of a recording."""

    recording: MarkerRecording
    landmarks: LandmarkSet
    betas: np.ndarray
    first_frame: int
    """Where the part to be scored begins."""


def attach_hand_markers(hand: HandModel, folder: str | Path) -> AttachedMarkers:
    """Markers attached to the skin on the first ten seconds, then frozen with the shape."""
    markers = read_hand_markers(folder)
    first = round(ATTACH_SECONDS * markers.fps)
    pick = slice(0, first, 10)
    points, seen = markers.points[pick], markers.seen[pick].astype(np.float32)
    guess, fps = marker_guess(hand, markers.names), markers.fps / 10
    landmarks = attach_markers(hand, points, guess, markers.names, weights=seen, settings=MARKERS, fps=fps)
    found = fit_sequence(hand, keypoints3d=points, weights=seen, landmarks=landmarks, fps=fps, settings=MARKERS)
    return AttachedMarkers(markers, landmarks, np.asarray(found.params.betas[0]), first)


def mocap(hand: HandModel, attached: AttachedMarkers, *, step: int = 1) -> Study:
    """The rest of the marker recording with attachment and shape frozen, every `step`-th frame."""
    markers = attached.recording
    pick = slice(attached.first_frame, None, step)
    rest = replace(markers, fps=markers.fps / step, points=markers.points[pick], seen=markers.seen[pick])
    found = fit_sequence(
        hand,
        keypoints3d=rest.points,
        weights=rest.seen.astype(np.float32),
        landmarks=attached.landmarks,
        betas=attached.betas,
        fps=rest.fps,
        settings=MARKERS,
    )
    note = f"markers attached on the first {ATTACH_SECONDS} s"
    return Study(rest, found, 1e3 * np.asarray(found.errors), rest.seen, "mm", note)


def hidden_marker(
    hand: HandModel, attached: AttachedMarkers, name: str, *, betas: np.ndarray | None = None, step: int = 5
) -> np.ndarray:
    """Millimetres (M,) by which a hidden marker is mispredicted from the others, with the attached shape or another."""
    markers, k = attached.recording, attached.recording.names.index(name)
    pick = slice(attached.first_frame, None, step)
    weights = markers.seen[pick].astype(np.float32)
    weights[:, k] = 0
    found = fit_sequence(
        hand,
        keypoints3d=markers.points[pick],
        weights=weights,
        landmarks=attached.landmarks,
        betas=attached.betas if betas is None else betas,
        fps=markers.fps / step,
        settings=MARKERS,
    )
    miss = np.linalg.norm(np.asarray(found.landmarks)[:, k] - markers.points[pick][:, k], axis=-1)
    return 1e3 * miss[markers.seen[pick][:, k]]


def hidden_marker_rigid(attached: AttachedMarkers, name: str, *, step: int = 5) -> np.ndarray:
    """The same prediction by a rigid body of all markers, as they stood on average while attaching."""
    markers, k = attached.recording, attached.recording.names.index(name)
    first = attached.first_frame
    complete = np.flatnonzero(markers.seen[:first].all(1))[::10]
    body = markers.points[complete[0]]
    body = np.mean([_rigid(markers.points[t], body, np.ones(len(body)), markers.points[t]) for t in complete], 0)
    misses = []
    for t in range(first, len(markers.points), step):
        if markers.seen[t, k]:
            weights = markers.seen[t].astype(float)
            weights[k] = 0
            misses.append(np.linalg.norm(_rigid(body, markers.points[t], weights, body[k]) - markers.points[t, k]))
    return 1e3 * np.array(misses)


def _rigid(source: np.ndarray, target: np.ndarray, weights: np.ndarray, points: np.ndarray) -> np.ndarray:
    """`points` moved as the rigid motion that best lays `source` on `target` (Kabsch 1976)."""
    w = weights / weights.sum()
    a, b = w @ source, w @ target
    U, _, Vt = np.linalg.svd((w[:, None] * (source - a)).T @ (target - b))
    R = Vt.T @ np.diag([1, 1, np.sign(np.linalg.det(Vt.T @ U.T))]) @ U.T
    return (points - a) @ R.T + b
