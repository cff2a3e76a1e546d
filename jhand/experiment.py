"""What an experiment script imports: presets, runs that are kept and resumed, claims, one command line for all.

    python -m experiments.hamba train  --preset cpu --seed 0        one training, and its scores
    python -m experiments.hamba eval   --preset cpu --seed 0        its scores again, on any data
    python -m experiments.hamba claims --preset cpu --seeds 3       the claims: all runs they need, verdict, result file
    python -m experiments.hamba table  --preset cpu --seeds 3       every metric of every variant
    ... --data freihand:/data/FreiHAND:training --held-out freihand:/data/FreiHAND:evaluation    on data of one's own
    ... --smoke                                                     a few steps of everything, to see that it runs

A run is a variant of a preset and a seed; its folder has the configuration, the versions and the log, and a run that
was interrupted goes on. What is done is not done again.
"""

import json
import statistics
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jhand.claims import Claim, Result, Table
from jhand.compile_cache import enable_compile_cache
from jhand.data.clip import select
from jhand.data.made import Made, Rows, first_examples, make_examples
from jhand.data.pipeline import Cached, Clip, Source, batches
from jhand.data.sources import open_source
from jhand.data.world import WorldConfig, cached_world, load_assets, make_clips
from jhand.data.world.datasets import script_name
from jhand.geometry.alignment import procrustes
from jhand.hand import HandModel, HandParams, load_hand
from jhand.judging import (
    Measures,
    RunOptions,
    budget,
    chosen_claims,
    chosen_variant,
    commit,
    judge,
    preset_of,
    run_folder,
    show_result,
    show_table,
    tabulate,
    variants_of,
)
from jhand.train import ModelCard, TrainState, load_weights, save_weights, train
from jhand.train.paths import is_under, merge, paths_of
from jhand.train.paths import select as part_of
from jhand.train.weights import versions

Batch = dict[str, Any]
Metric = Callable[[Any, Batch, HandModel], jax.Array]
"""`(outputs, batch, hand) -> (B,)`, one number for each example, NaN where it has none."""


@dataclass(frozen=True)
class Pooled:
    """A metric that is no mean over examples: a correlation over all of them, say, or a calibration."""

    each: Metric
    """`(outputs, batch, hand) -> (B, ...)`, what is needed of each example."""
    of_all: Callable[[jax.Array], Any]
    """From that of all held-out examples, (N, ...), to the number."""


TRAIN_SEED, HELD_OUT_SEED = 0, 1
"""Of the world: what is trained on, and what is never seen in training."""


@dataclass(frozen=True)
class Preset:
    """How large an experiment is."""

    config: Any
    """Of the system."""
    world: WorldConfig | Made
    """Clips with pictures, which the system prepares; or its examples themselves."""
    steps: int
    batch: int
    clips: int | None
    """Or examples: made once and read in epochs; None makes new ones inside each step, on the devices."""
    held_out: int = 1024
    """Clips or examples that scores are means over."""
    evaluate_every: int = 1000
    held_out_world: WorldConfig | Made | None = None
    """What scores are means over, where that is not more of the same: categories or scripts never trained on."""
    pretraining: int = 0
    """Steps of the system's `pretraining`, which stands for weights that a paper begins from: trained once, and what
    all variants and seeds begin from. 0 begins from nothing."""


@dataclass(frozen=True)
class Experiment:
    """A system, what its paper claims, and how that is looked at."""

    system: ModuleType
    presets: Mapping[str, Preset]
    metrics: Mapping[str, Metric | Pooled]
    units: Mapping[str, tuple[str, float]]
    """By metric: the unit it is reported in, and how many of it one is."""
    baseline: Callable[[Batch, HandModel], Callable[[Batch], Any]]
    """From training examples to a trivial answer: a function from a batch to outputs, such as `mean_hand`."""
    claims: Sequence[Claim]
    crop: Callable[[Clip, Any], Clip] = lambda clip, config: clip
    """What of a clip the system is shown, by its configuration; the same in training and after."""
    augment: Callable[[Clip, np.random.Generator], Clip] | None = None
    """Of crops of a dataset, in training; a world varies by itself."""
    stand_ins: Sequence[str] = ()
    """What stands for a frozen part of the paper that cannot be had."""
    licence: str = "Apache-2.0"

    @property
    def name(self) -> str:
        """The system's, as its file is called, or a module that has none."""
        return Path(getattr(self.system, "__file__", None) or self.system.__name__).stem


@dataclass(frozen=True)
class Options(RunOptions):
    """What the command line may change where something is trained."""

    data: str = ""
    """To train on, as `jhand.data.sources` names it; by default the preset's world."""
    held_out: str = ""
    """To evaluate on; needed where `data` is."""


def mean_hand(sample: Batch, hand: HandModel) -> Callable[[Batch], "Constant"]:
    """The trivial answer: always the mean of the hands in `sample["keypoints3d"]`, aligned to each other (generalised
    Procrustes: Gower 1975), the best that one answer can be under aligned errors; its mesh is the model's mean pose.
    """
    points = jnp.asarray(sample["keypoints3d"])[np.asarray(sample["keypoints3d_valid"]).all(-1)]
    mean = points[0] - jnp.mean(points[0], 0)
    for _ in range(5):
        R, scale, t = procrustes(points, mean)
        aligned = scale[:, None, None] * jnp.einsum("nij,nkj->nki", R, points, precision="highest") + t[:, None]
        mean = jnp.mean(aligned, 0)
    params = replace(HandParams.zeros(), hand_pose=hand.hands_mean.reshape(15, 3))
    return lambda batch: Constant(jnp.broadcast_to(mean, batch["keypoints3d"].shape), params)


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Constant:
    """The same hand for every example."""

    keypoints: jax.Array
    params: HandParams


@dataclass(frozen=True)
class Run:
    """One training, done or to be done."""

    variant: str
    config: Any
    seed: int
    preset: Preset
    folder: Path
    data: str
    held_out: str
    begin: "Run | None" = None
    """The pretraining whose parameters this one begins from."""


def fit(experiment: Experiment, run: Run, hand: HandModel) -> dict[str, Any]:
    """Train a run, or go on with it, and score it; what was done before is read.

    Returns:
        Scores by metric, in metres and the like, and `parameters`, `flops`, `milliseconds`, `steps`, `seconds`.
    """
    done = run.folder / "result.json"
    if done.is_file():
        return json.loads(done.read_text())
    run.folder.mkdir(parents=True, exist_ok=True)
    about = {"config": asdict(run.config), "seed": run.seed, "data": run.data, "commit": commit(), **versions()}
    (run.folder / "run.json").write_text(json.dumps(about, indent=1, default=repr) + "\n")
    start = time.perf_counter()
    held_out = held_out_batches(experiment, run)
    score = scorer(experiment, run.config, hand)
    preset = run.preset
    before = {} if run.begin is None else pretrained(experiment, run.begin, hand)
    state = train(
        jax.random.key(run.seed),
        lambda key: merge(experiment.system.init(key, run.config, hand), before),
        experiment.system.stages(run.config, hand, preset.steps),
        feed(experiment, run),
        folder=run.folder,
        evaluate=lambda state: score(state.averaged, held_out),
        evaluate_every=preset.evaluate_every,
        log_every=min(100, preset.steps),
        save_every=preset.evaluate_every,
        keep=2,
    )
    result = score(state.averaged, held_out) | cost(experiment, run.config, state, held_out[0], hand)
    result |= {"steps": preset.steps, "seconds": round(time.perf_counter() - start, 1)}
    card = ModelCard(
        system=experiment.name,
        config=asdict(run.config),
        data=trained_on(run),
        metrics={f"{name}_{experiment.units[name][0]}": value for name, value in reported(experiment, result).items()},
        licence=experiment.licence,
    )
    save_weights(run.folder / "weights", published(experiment, state.averaged), card)
    done.write_text(json.dumps(result, indent=1) + "\n")
    return result


def pretrained(experiment: Experiment, run: Run, hand: HandModel) -> dict[str, Any]:
    """The parameters that the system's `pretraining` trains, and their averages; trained once, then read."""
    stages = experiment.system.pretraining(run.config, hand, run.preset.pretraining)
    parts = tuple(dict.fromkeys(prefix for stage in stages for update in stage.updates for prefix in update.trainable))
    init = partial(experiment.system.init, config=run.config, hand=hand)

    def trained(variables: Mapping[str, Any]) -> dict[str, Any]:
        averaged = [path for path in paths_of(variables["stats"]) if is_under(path, parts)]
        return {"params": part_of(variables["params"], parts), "stats": part_of(variables["stats"], averaged)}

    weights = run.folder / "weights"
    if not weights.is_dir():
        run.folder.mkdir(parents=True, exist_ok=True)
        state = train(
            jax.random.key(run.seed),
            init,
            stages,
            feed(experiment, run),
            folder=run.folder,
            log_every=min(100, run.preset.pretraining),
            save_every=run.preset.evaluate_every,
            keep=2,
        )
        card = ModelCard(
            experiment.name, asdict(run.config), trained_on(run), {}, experiment.licence, notes="pretraining"
        )
        save_weights(weights, trained(state.averaged), card)
    return load_weights(weights, like=trained(jax.eval_shape(init, jax.random.key(0))))


def load_published(experiment: Experiment, folder: Path, config: Any, hand: HandModel) -> dict[str, Any]:
    """Variables that a training left in a folder, without what only it needs."""
    shapes = jax.eval_shape(lambda key: experiment.system.init(key, config, hand), jax.random.key(0))
    return load_weights(folder, like=published(experiment, shapes))


def published(experiment: Experiment, variables: Mapping[str, Any]) -> dict[str, Any]:
    """Variables without what only a training needs."""
    return {**variables, "params": experiment.system.predicting(variables["params"])}


def scorer(
    experiment: Experiment, config: Any, hand: HandModel
) -> Callable[[Mapping[str, Any], Sequence[Batch]], dict[str, float]]:
    """`(variables, batches) -> scores`: of each metric, the mean over the examples that have one."""

    @jax.jit
    def measure(variables: Any, batch: Batch, hand: HandModel) -> dict[str, jax.Array]:
        outputs = experiment.system.predict(variables, experiment.system.inputs_of(batch), config, hand)
        return _of_examples(experiment, outputs, batch, hand)

    def score(variables: Mapping[str, Any], batches: Sequence[Batch]) -> dict[str, float]:
        return _of_all(experiment, [measure(variables, batch, hand) for batch in batches])

    return score


def _of_examples(experiment: Experiment, outputs: Any, batch: Batch, hand: HandModel) -> dict[str, jax.Array]:
    each = {name: m.each if isinstance(m, Pooled) else m for name, m in experiment.metrics.items()}
    return {name: metric(outputs, batch, hand) for name, metric in each.items()}


def _of_all(experiment: Experiment, each: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    scores = {}
    for name, metric in experiment.metrics.items():
        values = np.concatenate([np.asarray(one[name]) for one in each])
        if isinstance(metric, Pooled):
            scores[name] = float(metric.of_all(jnp.asarray(values)))
        else:  # of few examples there may be none that a metric is of
            scores[name] = float("nan") if np.isnan(values).all() else float(np.nanmean(values))
    return scores


def baseline_scores(experiment: Experiment, run: Run, hand: HandModel) -> dict[str, float]:
    """What the trivial answer scores on the held-out examples."""
    answer = experiment.baseline(training_sample(experiment, run), hand)
    each = held_out_batches(experiment, run)
    return _of_all(experiment, [_of_examples(experiment, answer(b), b, hand) for b in each])


def training_sample(experiment: Experiment, run: Run) -> Batch:
    """Some of what is trained on, as it is."""
    if (made := made_of(run)) is not None:
        return dict(first_examples(made, TRAIN_SEED, min(2048, run.preset.clips or 2048)))
    return next(_numpy_batches(experiment, run, min(2048, len(train_source(experiment, run))), augmented=False))


def made_of(run: Run) -> Made | None:
    """Where examples come from that are no clips."""
    return None if run.data or not isinstance(run.preset.world, Made) else run.preset.world


def cost(experiment: Experiment, config: Any, state: TrainState, batch: Batch, hand: HandModel) -> dict[str, Any]:
    """Parameters of what predicts; floating point operations and milliseconds of one example."""
    system = experiment.system
    one = jax.tree.map(lambda x: jnp.asarray(x[:1]), batch)

    @jax.jit
    def predict(variables: Any, one: Batch) -> list[Any]:
        return jax.tree.leaves(system.predict(variables, system.inputs_of(one), config, hand))

    compiled = predict.lower(state.averaged, one).compile()
    times = []
    for _ in range(20):
        start = time.perf_counter()
        jax.block_until_ready(compiled(state.averaged, one))
        times.append(1000 * (time.perf_counter() - start))
    count = sum(leaf.size for leaf in jax.tree.leaves(system.predicting(state.params)))
    analysis = compiled.cost_analysis() or {}
    return {
        "parameters": count,
        "flops": float(analysis.get("flops", float("nan"))),
        "milliseconds": round(statistics.median(times), 3),
    }


def train_source(experiment: Experiment, run: Run) -> Source:
    """Clips to train on, without what the system does not need."""
    source = _source(run.data, run.preset.world, TRAIN_SEED, run.preset.clips or 2048)
    return Cached(_Seen(experiment, run, source, bool(run.data)))


def feed(experiment: Experiment, run: Run) -> Any:
    """Batches for `jhand.train.train`: of clips on disk or examples in memory, or made in the step."""
    preset = run.preset

    def numbers(step: jax.Array) -> jax.Array:
        return step * preset.batch + jnp.arange(preset.batch) + run.seed * 2**24

    if (examples := made_of(run)) is not None:
        if preset.clips is not None:
            return Rows(first_examples(examples, TRAIN_SEED, preset.clips), preset.batch, run.seed)
        return lambda step: make_examples(examples, TRAIN_SEED, numbers(step))
    if run.data or run.preset.clips is not None:
        return _numpy_batches(experiment, run, run.preset.batch, augmented=True)
    assets = load_assets()

    def made(step: jax.Array) -> Batch:
        clips = make_clips(TRAIN_SEED, numbers(step), preset.world, assets)
        return jax.vmap(lambda clip: experiment.system.prepare(clip, run.config))(clips)

    return made


def held_out_batches(experiment: Experiment, run: Run) -> list[Batch]:
    """What scores are means over: the same for every variant and seed, never augmented at random."""
    world = run.preset.held_out_world or run.preset.world
    if isinstance(world, Made) and not run.held_out:
        examples = first_examples(world, HELD_OUT_SEED, run.preset.held_out)
        size = min(run.preset.batch, run.preset.held_out)
        starts = range(0, run.preset.held_out // size * size, size)
        return [jax.tree.map(lambda leaf, i=i: leaf[i : i + size], dict(examples)) for i in starts]
    source = _source(run.held_out, world, HELD_OUT_SEED, run.preset.held_out)
    source = _Seen(experiment, run, source, bool(run.held_out))
    number = min(run.preset.held_out, len(source))
    size = min(run.preset.batch, number)
    prepared = [experiment.system.prepare(source[i], run.config) for i in range(number // size * size)]
    return [_stacked(prepared[i : i + size]) for i in range(0, len(prepared), size)]


def _source(named: str, world: WorldConfig | Made, seed: int, number: int) -> Source:
    """Clips of a dataset, or of a world where none is named."""
    if named:
        return open_source(named)
    assert not isinstance(world, Made), "examples are no clips"
    return cached_world(world, seed, number)


class _Seen:
    """Clips as a system is shown them, with what it needs, and zeros under a false mask for what a dataset lacks."""

    def __init__(self, experiment: Experiment, run: Run, source: Source, fill: bool) -> None:
        self._source, self._needs, self._fill = source, experiment.system.needs, fill
        self._crop = lambda clip: experiment.crop(clip, run.config)

    def __len__(self) -> int:
        return len(self._source)

    def __getitem__(self, index: int) -> Clip:
        return self._crop(select(self._source[index], self._needs, fill=self._fill))

    def __repr__(self) -> str:
        return f"{self._source!r} with {self._needs}"


def _numpy_batches(experiment: Experiment, run: Run, batch: int, augmented: bool) -> Iterator[Batch]:
    augment = experiment.augment if augmented and run.data else None
    prepare = partial(experiment.system.prepare, config=run.config)
    return iter(batches(train_source(experiment, run), prepare, batch=batch, seed=run.seed, augment=augment))


def _stacked(examples: Sequence[Batch]) -> Batch:
    return jax.tree.map(lambda *leaves: np.stack(leaves), *examples)


def trained_on(run: Run) -> str:
    """The data of a run in words."""
    world, number = run.preset.world, run.preset.clips or "new"
    if isinstance(world, Made):
        return run.data or f"{world}, {number} examples in training"
    seen = f"world ({script_name(world.script)}, {script_name(world.camera)} camera, {world.size[0]} pixels)"
    return run.data or f"{seen}, {number} clips in training"


def reported(experiment: Experiment, scores: Mapping[str, Any]) -> dict[str, float]:
    """Scores in the units that they are reported in."""
    return {name: experiment.units[name][1] * scores[name] for name in experiment.metrics}


def run_of(experiment: Experiment, options: Options, variant: str, fields: Mapping[str, Any], seed: int) -> Run:
    """The run of a variant and a seed; its folder is known by all that it depends on.

    Raises:
        ValueError: a preset that does not exist, or data without a held-out part.
    """
    preset: Preset = preset_of(experiment, options)
    if bool(options.data) != bool(options.held_out):
        raise ValueError("give --data and --held-out together: scores on what was trained on say nothing")
    if options.smoke:
        few = min(preset.pretraining, 4)
        preset = replace(preset, steps=4, batch=4, clips=16, held_out=8, evaluate_every=2, pretraining=few)

    def run(variant: str, config: Any, seed: int, begin: Run | None, **more: Any) -> Run:
        known_by = {**budget(preset, options.data), "config": asdict(config), **more}
        folder = run_folder(experiment, options, variant, seed, known_by)
        return Run(variant, config, seed, preset, folder, options.data, options.held_out, begin)

    begin = run("pretraining", preset.config, 0, None, steps=0, held_out=0) if preset.pretraining else None
    return run(variant, replace(preset.config, **fields), seed, begin, held_out_data=options.held_out)


def run_claim(experiment: Experiment, claim: Claim, options: Options) -> Result:
    """Both sides of a claim over all seeds, its verdict, and its result file."""
    return judge(experiment, claim, options, _measures(experiment, options, claim.variants))


def run_table(experiment: Experiment, options: Options) -> Table:
    """All variants of all claims over all seeds: every metric of each, and the file of the table."""
    return tabulate(experiment, options, _measures(experiment, options, variants_of(experiment)))


def _measures(experiment: Experiment, options: Options, variants: Mapping[str, Mapping[str, Any]]) -> Measures:
    hand = load_hand()

    def of(variant: str, seed: int) -> dict[str, Any]:
        found = fit(experiment, run_of(experiment, options, variant, variants[variant], seed), hand)
        kept = ("parameters", "flops", "milliseconds", "steps", "seconds", *experiment.metrics)
        return {name: found[name] for name in kept}

    name, fields = next(iter(variants.items()))
    first = run_of(experiment, options, name, fields, 0)
    known = budget(first.preset, options.data)
    return Measures(of, lambda: baseline_scores(experiment, first, hand), known, trained_on(first))


def main(experiment: Experiment, arguments: Sequence[str] | None = None) -> None:
    """The command line of an experiment script."""
    import tyro

    enable_compile_cache()

    def chosen(options: Options) -> Run:
        return run_of(experiment, options, *chosen_variant(experiment, options), options.seed)

    def train_one(options: tyro.conf.OmitArgPrefixes[Options]) -> None:
        """Train one variant with one seed, and score it."""
        run = chosen(options)
        result = fit(experiment, run, load_hand())
        _show(experiment, run, result)

    def evaluate(options: tyro.conf.OmitArgPrefixes[Options]) -> None:
        """Score what was trained, on the data named."""
        trained = chosen(replace(options, held_out=options.held_out if options.data else ""))
        folder, hand = trained.folder / "weights", load_hand()
        run = replace(trained, held_out=options.held_out)
        variables = load_published(experiment, folder, run.config, hand)
        _show(experiment, run, scorer(experiment, run.config, hand)(variables, held_out_batches(experiment, run)))

    def claims(options: tyro.conf.OmitArgPrefixes[Options]) -> None:
        """Run claims: all the trainings they compare, paired by seed, and their verdicts."""
        for claim in chosen_claims(experiment, options):
            show_result(run_claim(experiment, claim, options))

    def table(options: tyro.conf.OmitArgPrefixes[Options]) -> None:
        """Train all variants of all claims, with all seeds: every metric of each."""
        show_table(run_table(experiment, options))

    commands: dict[str, Callable[..., None]] = {"train": train_one, "eval": evaluate, "claims": claims, "table": table}
    tyro.extras.subcommand_cli_from_dict(commands, args=arguments)


def _show(experiment: Experiment, run: Run, result: Mapping[str, Any]) -> None:
    for name, value in reported(experiment, result).items():
        print(f"{run.variant}, seed {run.seed}: {name} {value:.4g} {experiment.units[name][0]}")
