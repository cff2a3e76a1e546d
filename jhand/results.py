"""What a fit of a recording leaves behind: one schema that pictures, reports and files are made from."""

import json
import os
from collections.abc import Callable
from dataclasses import dataclass, fields
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from jhand.data.recording import Recording
from jhand.geometry.camera import Camera, WeakCamera, unproject
from jhand.geometry.se3 import transform
from jhand.hand.kinematics import forward
from jhand.hand.model import HandModel, HandParams
from jhand.hand.skeleton import keypoint_names
from jhand.studies import Study, hand_size_2d

_BLOCK = 64  # frames


class ResultFileError(ValueError):
    """A file that `save_result` did not write: which file and what is missing."""


@dataclass(frozen=True)
class Result:
    """A fitted recording of T frames and K landmarks, in numpy."""

    name: str
    side: str
    model: str
    """Name of the hand model the parameters belong to."""
    fps: float
    unit: str
    """Of `errors`: `"mm"`, or `"px"` for a recording without metres, whose depth and true size are the prior's."""
    note: str
    up: tuple[float, float, float]
    """Direction of up in the frame of the parameters."""
    hand_length: float
    """Length of the hand, wrist to middle fingertip, in `unit`; in pixels as the picture shows it."""
    landmark_names: tuple[str, ...]
    global_orient: np.ndarray
    """(T, 3)"""
    hand_pose: np.ndarray
    """(T, 15, 3) relative to the flat hand"""
    betas: np.ndarray
    """(B,) one shape for all frames"""
    transl: np.ndarray
    """(T, 3)"""
    keypoints: np.ndarray
    """(T, 21, 3) of the fitted hand, openpose21 order, metres."""
    landmarks: np.ndarray
    """(T, K, 3) the fitted points that the measurements were compared with, metres."""
    measured: np.ndarray
    """(T, K, 3) the measurements, metres, 0 where not `seen`; those of a picture at the scale and depth of the fit."""
    seen: np.ndarray
    """(T, K) bool."""
    errors: np.ndarray
    """(T, K) in `unit`."""
    converged: np.ndarray
    """(T,) bool."""

    @property
    def num_frames(self) -> int:
        return len(self.errors)

    @property
    def params(self) -> HandParams:
        """Leading axis (T,)."""
        betas = np.broadcast_to(self.betas, (self.num_frames, *self.betas.shape))
        return HandParams(*map(jnp.asarray, (self.global_orient, self.hand_pose, betas, self.transl)))

    @property
    def scores(self) -> dict[str, float]:
        """Errors of the points seen: mean, 95th percentile and largest in `unit`, mean in percent of the hand's
        length.
        """
        counted = self.errors[self.seen]
        mean = float(counted.mean())
        return {
            "mean": mean,
            "p95": float(np.percentile(counted, 95)),
            "max": float(counted.max()),
            "percent": 100 * mean / self.hand_length,
            "max_beta": float(np.abs(self.betas).max()),
        }


def result_of(hand: HandModel, study: Study) -> Result:
    """The result of a study of a hand."""
    fit, recording = study.fit, study.recording
    landmarks, camera = np.asarray(fit.landmarks), fit.camera
    if not isinstance(recording, Recording):
        points, names = recording.points, recording.names
    else:
        points, names = recording.keypoints3d, keypoint_names("openpose21")
        if points is None:
            points = _at_the_depth_of(landmarks, recording.keypoints2d, camera)
    in_pixels = isinstance(recording, Recording) and study.unit == "px"
    hand_length = hand_size_2d(recording) if in_pixels else 1e3 * _length(fit.keypoints)
    betas = np.asarray(fit.params.betas)[0]
    return Result(
        name=recording.name,
        side=recording.side,
        model=hand.name,
        fps=recording.fps,
        unit=study.unit,
        note=study.note,
        up=recording.up,
        hand_length=hand_length,
        landmark_names=names,
        global_orient=np.asarray(fit.params.global_orient),
        hand_pose=np.asarray(fit.params.hand_pose),
        betas=betas,
        transl=np.asarray(fit.params.transl),
        keypoints=np.asarray(fit.keypoints),
        landmarks=landmarks,
        measured=np.where(study.seen[..., None], points, 0).astype(np.float32),
        seen=np.asarray(study.seen),
        errors=np.where(study.seen, study.errors, 0).astype(np.float32),
        converged=np.asarray(fit.converged),
    )


def _at_the_depth_of(landmarks: np.ndarray, pixels: Any, camera: Camera | WeakCamera | None) -> np.ndarray:
    """Points (T, K, 3) that are seen where measured (T, K, 2), as far away as those fitted."""
    if isinstance(camera, Camera):
        depth = transform(camera.T_cam_world, landmarks)[..., 2]
        return np.asarray(unproject(camera, pixels, depth))
    assert camera is not None  # what is not in metres was fitted through a camera
    xy = (pixels - np.asarray(camera.offset)[:, None]) / np.asarray(camera.scale)[:, None, None]
    return np.concatenate([xy, landmarks[..., 2:]], -1)


def _length(keypoints: Any) -> float:
    """Wrist to tip of the middle finger along its bones: the same in every frame but for the correctives of the tip."""
    chain = np.asarray(keypoints)[:, [0, 9, 10, 11, 12]]
    return float(np.linalg.norm(np.diff(chain, axis=1), axis=-1).sum(-1).mean())


def upright(up: tuple[float, float, float]) -> np.ndarray:
    """The rotation (3, 3) that takes the direction `up` to +y and leaves x as it is where it can.

    A camera's frame (y down, z forward) becomes that of glTF and OpenGL (y up, z towards the viewer).
    """
    y = np.asarray(up, float) / np.linalg.norm(up)
    x = np.array([1.0, 0, 0]) if abs(y[0]) < 0.9 else np.array([0, 0, 1.0])
    x = x - (x @ y) * y
    x /= np.linalg.norm(x)
    return np.stack([x, y, np.cross(x, y)])


def in_blocks(function: Callable[..., Array], *arrays: np.ndarray) -> np.ndarray:
    """A jitted function of arrays (T, ...) on blocks of one size, so that it compiles once whatever T is."""
    num = len(arrays[0])
    rows = np.minimum(np.arange(-(-num // _BLOCK) * _BLOCK), num - 1).reshape(-1, _BLOCK)
    return np.concatenate([np.asarray(function(*(a[r] for a in arrays))) for r in rows])[:num]


def vertices_of(hand: HandModel, result: Result, frames: slice | list[int] = slice(None)) -> np.ndarray:
    """Vertices (T, V, 3) of the fitted hand in all or some of its frames, metres."""
    betas = np.broadcast_to(result.betas, (result.num_frames, *result.betas.shape))
    arrays = (a[frames] for a in (result.global_orient, result.hand_pose, betas, result.transl))
    return in_blocks(partial(_vertices, hand), *arrays)


@jax.jit
def _vertices(hand: HandModel, *params: Array) -> Array:
    return forward(hand, HandParams(*params)).vertices


def save_result(result: Result, path: str | os.PathLike) -> None:
    """Write a result as `.npz`, an entry a field; the file is replaced in one step."""
    part = Path(f"{os.fspath(path)}.part")
    entries: dict[str, Any] = {f.name: np.asarray(getattr(result, f.name)) for f in fields(Result)}
    with part.open("wb") as out:
        np.savez_compressed(out, **entries)
    part.replace(path)


def load_result(path: str | os.PathLike) -> Result:
    """Read what `save_result` wrote.

    Raises:
        ResultFileError: another file.
    """
    try:
        with np.load(path, allow_pickle=False) as z:
            entries: dict[str, Any] = {key: z[key] for key in z.files}
    except OSError as error:
        raise ResultFileError(f"{path}: {error.strerror or 'not an .npz file'}") from None
    except (ValueError, EOFError) as error:
        raise ResultFileError(f"{path}: not an .npz file ({error})") from None
    missing = [f.name for f in fields(Result) if f.name not in entries]
    if missing:
        raise ResultFileError(
            f"{path}: not a fitted hand; it lacks {', '.join(missing)}. `jhand fit` writes params.npz"
        )
    for key in ("name", "side", "model", "fps", "unit", "note", "hand_length"):
        entries[key] = entries[key].tolist()
    for key in ("up", "landmark_names"):
        entries[key] = tuple(entries[key].tolist())
    return Result(**entries)


def save_for_smplx(result: Result, folder: str | os.PathLike) -> None:
    """Write `smplx.npz`, the arguments of smplx's `MANO.forward`, and `smplx.json`, those of its constructor.

    The arrays are global_orient (T, 3), hand_pose (T, 45), betas (T, 10) and transl (T, 3).
    """
    T = result.num_frames
    arrays: dict[str, Any] = {
        "global_orient": result.global_orient,
        "hand_pose": result.hand_pose.reshape(T, 45),
        "betas": np.broadcast_to(result.betas, (T, *result.betas.shape)),
        "transl": result.transl,
    }
    create = {
        "model_type": "mano",
        "is_rhand": result.side == "right",
        "use_pca": False,
        "flat_hand_mean": True,
        "num_betas": len(result.betas),
        "batch_size": T,
    }
    about = {"hand": result.model, "fps": result.fps, "name": result.name, "units": "metres, radians"}
    folder = Path(folder)
    part = folder / "smplx.npz.part"
    with part.open("wb") as out:
        np.savez_compressed(out, **arrays)
    part.replace(folder / "smplx.npz")
    (folder / "smplx.json").write_text(
        json.dumps({"create": create, "about": about}, indent=1) + "\n", encoding="utf-8"
    )


def save_errors(result: Result, path: str | os.PathLike) -> None:
    """Write a `.csv` table of errors: a row a frame, a column a landmark, in `unit`; empty where nothing was seen."""
    lines = [",".join(["frame", "seconds", *(f"{name} [{result.unit}]" for name in result.landmark_names)])]
    for t in range(result.num_frames):
        cells = (f"{e:.4g}" if s else "" for e, s in zip(result.errors[t], result.seen[t], strict=True))
        lines.append(",".join([str(t), f"{t / result.fps:.4f}", *cells]))
    Path(path).write_text("\n".join(lines) + "\n", encoding="utf-8")
