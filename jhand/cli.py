"""The command line: `jhand fit`, `track`, `view`, `convert`, `learn-landmarks`, `export-hand`, `doctor`, `demo`."""

import contextlib
import importlib.metadata
import os
import platform
import re
import sys
import time
import webbrowser
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated, Literal

import jax
import jax.numpy as jnp
import numpy as np
import tyro
from PIL import Image
from rich.console import Console
from rich.markup import escape
from rich.table import Table

import jhand
from jhand import studies
from jhand.compile_cache import enable_compile_cache
from jhand.data.landmark_files import load_landmarks, save_landmarks
from jhand.data.pictures import VideoWriter, camera_frames
from jhand.data.pose_file import write_hands
from jhand.data.recording import Recording, read_recording, write_recording
from jhand.fitting.calibrate import fit_landmarks
from jhand.fitting.solver import fit as fit_hands
from jhand.fitting.uncertainty import landmark_covariance
from jhand.gltf import write_glb
from jhand.hand.anatomy import sample_poses
from jhand.hand.files import load_hand, save_hand
from jhand.hand.kinematics import forward, keypoints
from jhand.hand.landmark_sets import keypoint_landmarks
from jhand.hand.model import HandModel, HandParams
from jhand.hand.sides import mirror_hand
from jhand.report import write_report
from jhand.results import (
    Result,
    in_blocks,
    load_result,
    result_of,
    save_errors,
    save_for_smplx,
    save_result,
    vertices_of,
)
from jhand.track.footage import Footage, files_in, is_picture, track_photo, track_video
from jhand.track.networks import Networks, load_networks
from jhand.viz import draw_fit, plot_errors, plot_fit, plot_overview

Side = Literal["right", "left"]
Output = Annotated[Path, tyro.conf.arg(aliases=["-o"])]

app = tyro.extras.SubcommandApp()


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command.

    Args:
        argv: arguments, by default those of the process.

    Returns:
        The exit status: 0, or 1 where something could not be done.
    """
    argv = sys.argv[1:] if argv is None else list(argv)
    if argv == ["--version"]:
        print(f"jhand {jhand.__version__}")
        return 0
    with contextlib.suppress(OSError):  # a home that cannot be written to costs time, not results
        enable_compile_cache()
    try:
        return app.cli(
            prog="jhand",
            description="Hands from recordings. `jhand --version` prints the version.",
            args=argv,
            config=(tyro.conf.FlagCreatePairsOff,),
        )
    except (ValueError, OSError) as error:  # what the library raises for wrong input and files
        Console(stderr=True, soft_wrap=True).print(f"[bold red]jhand:[/] {escape(_line(error))}")
        return 1
    except KeyboardInterrupt:
        Console(stderr=True).print("\njhand: interrupted")
        return 130


def _line(error: Exception) -> str:
    if isinstance(error, OSError) and error.filename is not None:
        return f"{error.filename}: {error.strerror}"
    return str(error)


@dataclass
class _Hands:
    """The hand of each side, loaded when first asked for: built in, or from a file and its mirror image."""

    file: Path | None = None
    loaded: dict[str, HandModel] = field(default_factory=dict)

    def __getitem__(self, side: str) -> HandModel:
        if side not in self.loaded:
            hand = load_hand(side=side) if self.file is None else load_hand(self.file)
            self.loaded[side] = hand if hand.side == side else mirror_hand(hand)
        return self.loaded[side]


@dataclass
class _Job:
    """Fits that are written as they come, and what went wrong."""

    out: Path
    hands: _Hands
    console: Console = field(default_factory=lambda: Console(soft_wrap=True))
    results: list[Result] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)
    folders: set[str] = field(default_factory=set)
    written: list[Path] = field(default_factory=list)
    """Where each of the results is."""
    say: Callable[[str], None] = print
    """Shows what is being done."""

    def run(self, name: str, work: Callable[[], Iterator[studies.Study]]) -> None:
        """Write the studies that `work` yields; an error ends this work, not the job."""
        start = time.perf_counter()
        try:
            with self.console.status(f"{escape(name)}: fitting (the first fit of its kind compiles)") as status:
                self.say = lambda text: status.update(escape(text))
                for study in work():
                    took = time.perf_counter() - start
                    status.update(f"{escape(study.recording.name)}: writing")
                    self.add(study, took)
                    status.update(f"{escape(name)}: fitting")
                    start = time.perf_counter()
        except (ValueError, OSError) as error:
            self.failures.append(_line(error))
            self.console.print(f"[red]failed[/]  {escape(_line(error))}")

    def add(self, study: studies.Study, seconds: float) -> None:
        hand = self.hands[study.recording.side]
        result = result_of(hand, study)
        folder = self.out / self.folder_for(result.name)
        folder.mkdir(parents=True, exist_ok=True)
        save_result(result, folder / "params.npz")
        save_for_smplx(result, folder)
        write_glb(folder / "hand.glb", hand, result.params, fps=result.fps, up=result.up)
        save_errors(result, folder / "errors.csv")
        plot_fit(hand, result, folder / "fit.png")
        plot_errors(result, folder / "errors.png")
        self.results.append(result)
        self.written.append(folder)
        scores = result.scores
        self.console.print(
            f"[green]fitted[/]  {escape(result.name)}, {result.side} hand: {result.num_frames} frames, mean error "
            f"{scores['mean']:.2f} {result.unit}, p95 {scores['p95']:.2f} {result.unit}  [dim]{seconds:.1f} s[/]"
        )

    def folder_for(self, name: str) -> str:
        """A folder of its own for each recording, whatever it is called."""
        plain = _file_name(name)
        folder, number = plain, 1
        while folder.lower() in self.folders:
            number += 1
            folder = f"{plain}_{number}"
        self.folders.add(folder.lower())
        return folder

    def finish(self) -> int:
        """Write and print what concerns all recordings."""
        if self.results:
            used = {side: self.hands[side] for side in {r.side for r in self.results}}
            _write_summary(self.results, self.out / "summary.csv")
            plot_overview(used, self.results, self.out / "overview.png")
            write_report(used, self.results, self.out / "report.html")
            self.console.print(_table(self.results))
            self.console.print(f"report  {escape(str((self.out / 'report.html').resolve()))}")
        for failure in self.failures:
            self.console.print(f"[bold red]failed[/]  {escape(failure)}")
        return 1 if self.failures or not self.results else 0


def _file_name(name: str) -> str:
    return re.sub(r"[^\w.-]+", "_", name).strip("._") or "recording"


def _write_summary(results: Sequence[Result], path: Path) -> None:
    keys = ("mean", "p95", "max", "percent", "max_beta")
    lines = ["recording,side,frames,unit,mean,p95,max,percent_of_hand_length,largest_beta"]
    for r in results:
        name = '"' + r.name.replace('"', '""') + '"'
        lines.append(",".join([name, r.side, str(r.num_frames), r.unit, *(f"{r.scores[k]:.4g}" for k in keys)]))
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")


def _table(results: Sequence[Result]) -> Table:
    table = Table(box=None, pad_edge=False)
    table.add_column("recording", no_wrap=True)
    table.add_column("hand", no_wrap=True)
    for name in ("frames", "mean", "p95", "max", "", "of length", "|beta|"):
        table.add_column(name, justify="right", no_wrap=True)
    for r in results:
        s = r.scores
        errors = (f"{s[key]:.2f}" for key in ("mean", "p95", "max"))
        row = (str(r.num_frames), *errors, r.unit, f"{s['percent']:.1f} %", f"{s['max_beta']:.2f}")
        table.add_row(escape(r.name), r.side, *row)
    return table


@app.command
def fit(
    inputs: tyro.conf.Positional[tuple[Path, ...]],
    /,
    out: Output,
    side: Side | None = None,
    fps: float | None = None,
    order: str | None = None,
    hand: Path | None = None,
    landmarks: Path | None = None,
) -> int:
    """Fit hands to recordings: `.pose`, MediaPipe `.json`, `.npz` or `.csv`.

    Each recording gets a folder with its parameters (params.npz, smplx.npz), an animated hand.glb, errors.csv and
    pictures; report.html shows all of them. What is fitted is kept when another input fails.

    Args:
        inputs: recordings.
        out: folder for the results.
        side: which hand, where a recording does not say it or says it wrongly; of a `.pose` file only this one.
        fps: frames per second, where a recording does not say it.
        order: keypoint order of `.npz` and `.csv`, such as openpose21 or mano16.
        hand: hand model, such as MANO_RIGHT.pkl; the other side gets its mirror image. By default the built-in hands.
        landmarks: what the source's points are on this hand, from `jhand learn-landmarks`.
    """
    if not inputs:
        raise ValueError("nothing to fit: name at least one recording")
    job = _Job(out, _Hands(hand))
    if hand is not None:
        job.hands[load_hand(hand).side]  # a bad model fails here, before any fit
    out.mkdir(parents=True, exist_ok=True)

    def fitted(path: Path) -> Iterator[studies.Study]:
        for recording in read_recording(path, side=side, fps=fps, order=order):
            model = job.hands[recording.side]
            points = None if landmarks is None else load_landmarks(model, landmarks)
            note = "" if landmarks is None else f"landmarks of {landmarks.name}"
            yield studies.fit_recording(model, recording, landmarks=points, note=note)

    try:
        for i, path in enumerate(inputs):
            job.run(f"{path} ({i + 1} of {len(inputs)})", lambda path=path: fitted(path))
    finally:  # also when interrupted
        status = job.finish()
    return status


@app.command
def track(
    inputs: tyro.conf.Positional[tuple[str, ...]],
    /,
    out: Output,
    max_frames: int | None = None,
    num_hands: int = 2,
    size: Literal["full", "lite"] = "full",
    focal: float | None = None,
    hand: Path | None = None,
) -> int:
    """Find hands in photos and videos and fit them: nothing but pictures goes in.

    Each hand gets a folder as from `jhand fit`, with what the tracker saw (tracked.npz) and how sure the fit is
    (uncertainty.npz) beside it; each photo or video one with its pictures drawn over (overlay.jpg, overlay.mp4) and
    hands.pose. Parameters are in the frame of the camera, metres. What is done is kept when another input fails.

    Args:
        inputs: photos, videos, folders of them, or the number of a camera, which is recorded until Ctrl-C. The photos
            of a folder have nothing to do with each other.
        out: folder for the results.
        max_frames: of each video the first so many.
        num_hands: at most so many hands at a time.
        size: of the networks; lite takes half of the time.
        focal: focal length, pixels; by default what a photo says, else the longer side of the picture. Distances are as
            uncertain as it is.
        hand: hand model, such as MANO_RIGHT.pkl; the other side gets its mirror image. By default the built-in hands.
    """
    if not inputs:
        raise ValueError("nothing to track: name at least one photo, video, folder or camera")
    if num_hands < 1 or (max_frames is not None and max_frames < 1):
        raise ValueError(f"expected at least one hand and one frame, got {num_hands} and {max_frames}")
    if focal is not None and not focal > 0:
        raise ValueError(f"focal: expected a positive number of pixels, got {focal}")
    job = _Job(out, _Hands(hand))
    if hand is not None:
        job.hands[load_hand(hand).side]  # a bad model fails here, before any fit
    networks = load_networks(size)
    out.mkdir(parents=True, exist_ok=True)

    def found(path: Path) -> Iterator[studies.Study]:
        if is_picture(path):
            footage = track_photo(networks, path, num_hands=num_hands, focal=focal)
        else:
            footage = _track_video(job, networks, path, num_hands, focal, max_frames)
        return _fit_footage(job, footage)

    try:
        for name in inputs:
            try:
                is_camera = name.isdigit() and not Path(name).exists()
                paths = [_record(job, int(name), max_frames)] if is_camera else files_in(name)
            except (ValueError, OSError) as error:
                job.failures.append(_line(error))
                job.console.print(f"[red]failed[/]  {escape(_line(error))}")
                continue
            for i, path in enumerate(paths):
                job.run(f"{path} ({i + 1} of {len(paths)})", lambda path=path: found(path))
    finally:  # also when interrupted
        status = job.finish()
    return status


def _track_video(
    job: _Job, networks: Networks, path: Path, num_hands: int, focal: float | None, max_frames: int | None
) -> Footage:
    show = lambda n: job.say(f"{path}: looking for hands, frame {n}")  # noqa: E731
    return track_video(networks, path, num_hands=num_hands, focal=focal, max_frames=max_frames, progress=show)


def _fit_footage(job: _Job, footage: Footage) -> Iterator[studies.Study]:
    """The hands of a photo or video, each fitted; then it with all of them drawn over."""
    frames = "a photo" if is_picture(footage.path) else f"{footage.num_frames} frames"
    if not footage.hands:
        raise ValueError(f"{footage.path}: no hand to be seen in {frames}")
    seen = ", ".join(f"a {hand.side} hand in {int(hand.present.sum())}" for hand in footage.hands)
    job.console.print(f"[green]tracked[/] {escape(str(footage.path))}, {frames}: {seen}")
    first = len(job.results)
    for i, hand in enumerate(footage.hands):
        number = sum(other.side == hand.side for other in footage.hands[:i]) + 1
        name = f"{footage.path.stem} {hand.side}" + (f" {number}" if number > 1 else "")
        job.say(f"{name}: fitting (the first fit of its kind compiles)")
        study = studies.fit_footage(job.hands[hand.side], footage, hand, name)
        yield study
        _write_tracking(job, footage, i, study, job.written[-1])
    folder = job.out / job.folder_for(footage.path.stem)
    folder.mkdir(parents=True, exist_ok=True)
    trust = [np.repeat(hand.score[:, None], 21, 1) for hand in footage.hands]
    points = [np.concatenate([hand.keypoints2d, hand.depth[..., None]], -1) for hand in footage.hands]
    sides = [hand.side for hand in footage.hands]
    write_hands(folder / "hands.pose", list(zip(sides, points, trust, strict=True)), size=footage.size, fps=footage.fps)
    _draw_footage(job, footage, job.results[first:], folder)


def _write_tracking(job: _Job, footage: Footage, index: int, study: studies.Study, folder: Path) -> None:
    """What the tracker saw of a hand, as `jhand fit` reads it, and how sure the fit is."""
    tracked, fit = footage.hands[index], study.fit
    assert isinstance(study.recording, Recording)
    write_recording(replace(study.recording, keypoints3d=tracked.keypoints3d), folder / "tracked.npz")
    deviation = np.sqrt(np.diagonal(np.asarray(fit.covariance), axis1=-2, axis2=-1))
    leaves, tree = jax.tree.flatten(fit)
    covariance = in_blocks(
        lambda *some: landmark_covariance(job.hands[tracked.side], jax.tree.unflatten(tree, map(jnp.asarray, some))),
        *map(np.asarray, leaves),
    )
    np.savez_compressed(
        folder / "uncertainty.npz",
        present=tracked.present,
        right=tracked.right,
        doubt=np.asarray(fit.doubt),
        K=np.asarray(footage.camera.K),
        parameter_deviation=deviation,
        keypoint_covariance=covariance,
    )


_SHEET = 6  # frames of a video that overlay.jpg shows


def _draw_footage(job: _Job, footage: Footage, results: Sequence[Result], folder: Path) -> None:
    """Every frame with the fitted hands and the tracked points over it."""
    meshes = [vertices_of(job.hands[r.side], r) for r in results]
    faces = {side: np.asarray(job.hands[side].faces) for side in {r.side for r in results}}

    def drawn(t: int, frame: np.ndarray) -> np.ndarray:
        for result, tracked, vertices in zip(results, footage.hands, meshes, strict=True):
            if tracked.present[t]:
                points = tracked.keypoints2d[t]
                frame = draw_fit(frame, vertices[t], faces[result.side], footage.camera, points)
        return frame

    frames = (drawn(t, frame) for t, frame in enumerate(footage.frames()))
    if is_picture(footage.path):
        Image.fromarray(next(frames)).save(folder / "overlay.jpg", quality=92)
        return
    shown = np.flatnonzero(np.any([hand.present for hand in footage.hands], 0))
    pick = set(shown[np.unique(np.linspace(0, len(shown) - 1, _SHEET).round().astype(int))].tolist())
    sheet = []
    with VideoWriter(folder / "overlay.mp4", footage.size, footage.fps) as video:
        for t, frame in enumerate(frames):
            video.write(frame)
            job.say(f"{footage.path}: drawing, frame {t + 1} of {footage.num_frames}")
            if t in pick:
                small = Image.fromarray(frame)
                small.thumbnail((400, 400))
                sheet.append(np.asarray(small))
    Image.fromarray(np.concatenate(sheet, 1)).save(folder / "overlay.jpg", quality=92)


def _record(job: _Job, number: int, max_frames: int | None) -> Path:
    """What a camera gives, until it is interrupted or has given enough, as a video beside the results."""
    path = job.out / f"camera_{number}.mp4"
    job.console.print(f"recording camera {number}" + ("; Ctrl-C ends it" if max_frames is None else ""))
    with contextlib.ExitStack() as stack:
        waiting, video, start = [], None, time.perf_counter()
        with contextlib.suppress(KeyboardInterrupt):
            for i, frame in enumerate(camera_frames(number, max_frames)):
                waiting.append(frame)
                took = time.perf_counter() - start
                if video is None and (took > 1 or i + 1 == max_frames):  # how fast it is, only it can say
                    size = (frame.shape[1], frame.shape[0])
                    video = stack.enter_context(VideoWriter(path, size, min(max((i + 1) / took, 1.0), 120.0)))
                while video is not None and waiting:
                    video.write(waiting.pop(0))
        if video is None:
            raise ValueError(f"camera {number}: interrupted before it was recorded for a second")
    return path


@app.command
def demo(out: Output = Path("out/demo"), data: Path | None = None) -> int:
    """Fit the embedded fingerspelling clips and, where they are there, four sets of real recordings.

    Args:
        out: folder for the results.
        data: folder of the recordings that `jhand.data.readers.open_recordings` reads; by default $JHAND_DATA, or
            ../shared/data where that exists.
    """
    folder = Path(os.environ.get("JHAND_DATA", "../shared/data")) if data is None else data
    job = _Job(out, _Hands())
    right = job.hands["right"]
    out.mkdir(parents=True, exist_ok=True)
    start = time.perf_counter()
    sources: dict[str, Callable[[], Iterator[studies.Study]]] = {
        "fingerspelling": lambda: (studies.fit_recording(job.hands[c.side], c) for c in studies.fingerspelling())
    }
    if folder.is_dir():
        sources |= {
            "Quest poses": lambda: iter([studies.quest(right, folder)]),
            "Leap": lambda: iter(studies.leap(right, folder)),
            "hand video": lambda: iter([studies.hand_video(right, folder)]),
            "mocap": lambda: iter([studies.mocap(right, studies.attach_hand_markers(right, folder), step=14)]),
        }
    else:
        job.console.print(
            f"no recordings in {escape(str(folder))}: the embedded clips only (JHAND_DATA names a folder)"
        )
    try:
        for name, work in sources.items():
            job.run(name, work)
    finally:
        status = job.finish()
    job.console.print(f"[dim]{time.perf_counter() - start:.0f} s in all[/]")
    return status


@app.command
def view(target: tyro.conf.Positional[Path], /, hand: Path | None = None, no_browser: bool = False) -> int:
    """Show a report in the browser.

    Args:
        target: folder of a job, its report.html, or a params.npz, for which a report is written beside it.
        hand: the model that a params.npz belongs to, if not a built-in one.
        no_browser: only print where the report is.
    """
    if target.suffix == ".npz":
        result = load_result(target)
        model = _Hands(hand)[result.side]
        if model.name != result.model:
            raise ValueError(f"{target}: fitted with the hand {result.model!r}; pass its file with --hand")
        target = target.with_suffix(".html")
        write_report({result.side: model}, [result], target)
    elif target.is_dir():
        target = target / "report.html"
    if not target.is_file():
        raise ValueError(f"{target}: there is no such report; `jhand fit` writes one")
    print(target.resolve())
    if not no_browser:
        webbrowser.open(target.resolve().as_uri())
    return 0


@app.command
def convert(
    source: tyro.conf.Positional[Path],
    target: tyro.conf.Positional[Path],
    /,
    side: Side | None = None,
    fps: float | None = None,
    order: str | None = None,
) -> int:
    """Convert a recording to `.npz` or `.csv`, or a hand model between MANO's `.pkl` and `.npz`.

    A recording of several hands becomes several files, named after each of them.

    Args:
        source: a recording (`.pose`, `.json`, `.npz`, `.csv`) or a hand (`.pkl`, `.npz`).
        target: the file to write.
        side: which hand of a recording, as for `jhand fit`.
        fps: frames per second, where a recording does not say it.
        order: keypoint order of a recording in `.npz` or `.csv`.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    if _is_hand(source):
        save_hand(load_hand(source), target)
        print(target)
        return 0
    recordings = read_recording(source, side=side, fps=fps, order=order)
    for recording in recordings:
        which = recording.name.removeprefix(source.stem)
        path = target if len(recordings) == 1 else target.with_stem(f"{target.stem}_{_file_name(which)}")
        write_recording(recording, path)
        print(path)
    return 0


def _is_hand(path: Path) -> bool:
    if path.suffix != ".npz":
        return path.suffix in (".pkl", ".pickle")
    try:
        with np.load(path, allow_pickle=False) as z:
            return "v_template" in z.files
    except (ValueError, OSError):
        return False  # the reader of recordings says what is wrong with it


@app.command
def learn_landmarks(
    inputs: tyro.conf.Positional[tuple[Path, ...]],
    /,
    out: Output,
    side: Side | None = None,
    fps: float | None = None,
    order: str | None = None,
    hand: Path | None = None,
) -> int:
    """Learn what a source calls its keypoints, from recordings in metres, for `jhand fit --landmarks`.

    Trackers' joints are not those of an anatomical hand, and fitting them as if they were bends its shape. Learn on
    other recordings of the source than are fitted.

    Args:
        inputs: recordings of one side, by one source, in metres; each may show another person.
        out: landmark file to write (.npz).
        side: which hand, as for `jhand fit`.
        fps: frames per second, where a recording does not say it.
        order: keypoint order of `.npz` and `.csv`.
        hand: hand model, by default the built-in one.
    """
    recordings = [r for path in inputs for r in read_recording(path, side=side, fps=fps, order=order)]
    sides = {r.side for r in recordings}
    if len(sides) != 1:
        raise ValueError("expected recordings of one side, got right and left hands: pass --side")
    points = [studies.metres(r) for r in recordings]
    longest = max(r.num_frames for r in recordings)
    fill = lambda a: np.concatenate([a, np.zeros((longest - len(a), *a.shape[1:]), np.float32)])  # noqa: E731
    model = _Hands(hand)[sides.pop()]
    console = Console()
    with console.status("learning landmarks"):
        learned = fit_landmarks(
            model,
            np.stack([fill(p) for p in points]),
            weights=np.stack([fill(r.confidence) for r in recordings]),
            fps=float(np.median([r.fps for r in recordings])),
        )
    out.parent.mkdir(parents=True, exist_ok=True)
    save_landmarks(model, learned, out)
    plain = keypoint_landmarks(model)
    moved = 1e3 * np.linalg.norm(np.asarray(learned.basis[0] - plain.basis[0]), axis=0)
    console.print(f"{escape(str(out))}: moved by {moved.mean():.1f} mm on average, at most {moved.max():.1f} mm")
    return 0


@app.command
def export_hand(
    out: tyro.conf.Positional[Path],
    /,
    side: Side = "right",
    level: Literal["default", "fine"] = "default",
) -> int:
    """Write a built-in hand: the model as `.npz` or MANO-layout `.pkl`, its flat mesh as `.obj`, `.ply` or `.glb`.

    Args:
        out: the file to write.
        side: right or left.
        level: 778 vertices, or about 1600.
    """
    hand = load_hand(side=side, level=level)
    out.parent.mkdir(parents=True, exist_ok=True)
    if out.suffix in (".npz", ".pkl"):
        save_hand(hand, out)
    elif out.suffix == ".glb":
        write_glb(out, hand, HandParams.zeros((1,), hand.num_betas), up=(0.0, 1.0, 0.0))
    elif out.suffix in (".obj", ".ply"):
        import trimesh

        mesh = trimesh.Trimesh(np.asarray(hand.v_template), np.asarray(hand.faces), process=False)
        mesh.export(out)
    else:
        raise ValueError(f"{out}: hands are written as .npz, .pkl, .obj, .ply or .glb, not {out.suffix!r}")
    print(out)
    return 0


@app.command
def doctor() -> int:
    """Print versions and devices, and test this installation with numbers."""
    console = Console(soft_wrap=True)
    console.print(f"jhand {jhand.__version__}, Python {platform.python_version()}, {platform.platform()}")
    packages = ("jax", "jaxlib", "numpy", "matplotlib", "trimesh", "tyro", "rich")
    console.print(", ".join(f"{name} {importlib.metadata.version(name)}" for name in packages))
    console.print(f"devices: {', '.join(f'{d.platform} {d.device_kind}' for d in jax.devices())}")
    console.print(f"compiled code is kept in {jax.config.values['jax_compilation_cache_dir'] or 'memory only'}")
    failures = 0

    def check(what: str, value: float, limit: float, unit: str) -> None:
        nonlocal failures
        good = value < limit
        failures += not good
        verdict = "[green]good[/]" if good else "[bold red]bad[/]"
        console.print(f"{verdict}  {what}: {value:.3g} {unit} (below {limit:g} expected)")

    for side in ("right", "left"):
        hand = load_hand(side=side)
        key = jax.random.key(0)
        params = HandParams(
            global_orient=jax.random.normal(key, (16, 3)),
            hand_pose=sample_poses(key, hand, (16,)),
            betas=jnp.clip(jax.random.normal(key, (16, hand.num_betas)), -2, 2),
            transl=0.3 * jax.random.normal(key, (16, 3)),
        )
        mesh = forward(hand, params)
        apart = jnp.abs(mesh.keypoints - keypoints(hand, params)).max()
        check(f"{side} hand, keypoints with and without the mesh differ by", 1e3 * float(apart), 0.01, "mm")
        start = time.perf_counter()
        found = fit_hands(hand, keypoints3d=mesh.keypoints)
        error = jnp.linalg.norm(found.keypoints - mesh.keypoints, axis=-1)
        check(
            f"{side} hand, 16 random hands fitted to their keypoints, mean error", 1e3 * float(error.mean()), 0.1, "mm"
        )
        console.print(f"      [dim]{time.perf_counter() - start:.1f} s with compilation[/]")
    return 1 if failures else 0
