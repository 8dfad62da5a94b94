"""The job: train on two folders of images, or resume a run, until done, asked to stop, or out of time."""

from __future__ import annotations

import dataclasses
import re
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

import fruitgan
from fruitgan import bundle as bundles
from fruitgan.data.image_dataset import ImageDataset
from fruitgan.data.preprocessing import with_found_range
from fruitgan.data.sources import Source, find_source
from fruitgan.device import Threads, choose_device, deterministic, own_randomness, shared_threads, using_threads
from fruitgan.distributed import own_gpu, own_threads, ranks
from fruitgan.errors import DataError, UsageError, is_out_of_memory
from fruitgan.progress import Listener, Note, OnProgress
from fruitgan.runs.resume import changed_settings, environment, find_run, keep_environment, run_of_launch
from fruitgan.runs.run import CONFIG, RESULT, Run, check_new, free_name, of_first
from fruitgan.runs.trackers import Trackers
from fruitgan.settings import to_json, typed
from fruitgan.train_gan.assemble import (
    Datasets,
    compile_networks,
    give_teacher,
    load_datasets,
    load_generators,
    make_objective,
    make_plan,
    make_trainer,
    refuse_overlap,
    shown_size_px,
)
from fruitgan.train_gan.estimate import OutOfMemory, check_memory, training_threads
from fruitgan.train_gan.objectives.contracts import Objective
from fruitgan.train_gan.recipe import LENGTHS, changed_fields, changed_recipe
from fruitgan.train_gan.samples import HeldOutKid, hold_out
from fruitgan.train_gan.segment import Segment
from fruitgan.train_gan.settings import (
    DEFAULTS,
    FIXED,
    KEPT,
    PLACES,
    Plan,
    RunConfig,
    TrainGanResult,
    TrainGanSettings,
    located,
    read_config,
    resumed_settings,
)
from fruitgan.train_gan.trainer import Trainer

LATER_FIELDS = re.compile(
    r"steps|epochs|ema_decay|(weights|learning_rate)\b.*|optimizers\.[^.]+\.(learning_rate|beta_2|epsilon)"
)
"""Fields of a recipe that only affect the steps to come, so that a resumed run may change them."""


def train_gan(settings: TrainGanSettings, on_progress: OnProgress | None = None) -> TrainGanResult:
    """Train an unpaired translation, or go on with a run.

    Returns when the steps are done, when `max_seconds` are over, or when `on_progress` returns True; in each case everything
    is saved. A finished run that is resumed without more steps gives its result again.

    Within `process_group.joined` it is one of the processes that train together, of which the first one alone writes.

    Raises:
        UsageError, DataError, EnvironmentProblem: as docs/exit-codes.md says.
        LossNotFinite, OutOfMemory: the last checkpoint stays.
    """
    with ExitStack() as stack:
        return _Job(settings, Listener(on_progress), stack).go()


@dataclass
class _Job:
    settings: TrainGanSettings
    listener: Listener
    stack: ExitStack
    run: Run | None = None
    """None while there is none yet."""
    init_sha256: str | None = None
    """Of the weights that it starts from."""

    def go(self) -> TrainGanResult:
        asked = self.settings
        if (again := run_of_launch(asked.out)) is not None:
            unasked, names = TrainGanSettings(), (*FIXED, "recipe_changes", "learning_rate", "cycle_weight", "name")
            asked = dataclasses.replace(asked, resume=again, **{name: getattr(unasked, name) for name in names})
            self.listener.warn(f"the processes were started anew, and go on from the last checkpoint of {again}")
        if asked.resume is None:
            check_new(asked.out, asked.name)
            new = {name: value for name, value in DEFAULTS.items() if getattr(asked, name) is None}
            self.settings = dataclasses.replace(located(asked), **new)  # so that its config keeps them
            return self._train()
        self.run = run = of_first(lambda: _found(asked))
        notes = list(run.notes)
        for is_taken in (False, True):  # a finished run need not be writable; another process may go on with an open one
            if is_taken:
                notes += self.stack.enter_context(run.taken())
            self.settings = resumed_settings(run, asked)
            if (result := self._finished(run, asked)) is not None:
                return result
        self.listener.warn(*notes)
        if ranks().is_group:
            self.settings = dataclasses.replace(self.settings, threads=asked.threads)
        return self._train()

    def _finished(self, run: Run, asked: TrainGanSettings) -> TrainGanResult | None:
        """The run's result, if no more is asked of it.

        Raises:
            UsageError: something is asked that a finished run cannot do.
        """
        if (kept := run.result) is None:
            return None
        result = typed(TrainGanResult, kept, run.path / RESULT)
        steps = asked.steps
        if steps is None and asked.epochs is not None:
            steps = asked.epochs * read_config(run).steps_per_epoch
        if steps is not None and steps > result.step:
            return None
        done = f"{run.path} is finished, at step {result.step}"
        if steps is not None and steps < result.step:
            earlier = f"--resume {run.path.name}@STEP --name NEW begins another run at an earlier checkpoint"
            raise UsageError(f"{done}, and {steps} are fewer; {earlier}")
        changes = changed_settings(self.settings, read_config(run).settings, (*PLACES, *KEPT))
        changes += [f"--set {name}" for name in _changes(run, _resumed_plan(run, asked))]
        if changes:
            raise UsageError(f"{done}: {changes[0]} would change nothing; give more --steps with it")
        return dataclasses.replace(result, run=run.path, bundle=run.path / bundles.FILE_NAME)  # wherever it lay at its end

    def _train(self) -> TrainGanResult:
        device = choose_device(own_gpu(self.settings.gpu, self.settings.device), self.settings.device)
        self.stack.enter_context(own_randomness(device))
        if self.settings.deterministic:
            self.stack.enter_context(deterministic(device))
        is_new, tell = self.run is None, self.listener.tell
        trackers = Trackers(self.settings.track if ranks().is_first else (), self.listener, is_new)
        plan = make_plan(self.settings, device) if self.run is None else _resumed_plan(self.run, self.settings)
        threads = self._threads(plan) if device.type == "cpu" else None
        ranks().divide(plan.recipe.batch_size)
        objective = ranks().in_turn(lambda: self._objective(plan, self.run is None or not self.run.saved_step))
        if not self.settings.force:
            check_memory(plan, objective, device)
        source = ranks().in_turn(self._source)
        if is_new:
            training_images = [*source.a.train, *source.b.train]
            plan = dataclasses.replace(plan, preprocessing=with_found_range(plan.preprocessing, training_images, tell))
        held: tuple[ImageDataset, ...] = ()
        if self.settings.evaluate_every is not None:
            source, held = ranks().in_turn(lambda: hold_out(source, plan, shown_size_px(plan, objective), tell))
        datasets = dataclasses.replace(ranks().in_turn(lambda: load_datasets(plan, source, tell)), held_out=held)
        self.listener.warn(*source.notes, *(datasets.notes if is_new else ()))  # a resumed run has said them
        if is_new and not self.settings.allow_overlap:
            refuse_overlap(source, datasets)
        for (path, reason), *others in filter(None, (datasets.a.broken, datasets.b.broken)):
            count = f"{1 + len(others)} unreadable image{'s' * bool(others)}"
            self.listener.warn(f"{count} left out; the first: {path}: {reason}")
        log_every = self.settings.log_every or DEFAULTS["log_every"]
        ranks().agree(self._facts(plan, datasets, device) | {"--log-every": log_every})
        with self._memory_reported(plan, device):
            trainer = make_trainer(plan, datasets, objective, device, log_every)
            if self.settings.compile:
                compile_networks(objective.networks, device)
            if self.run is None:
                self.run = of_first(lambda: self._create(plan, datasets, source, trainer, device))
                self.listener.warn(*self.stack.enter_context(self.run.taken()))
            else:
                self._check_images(self.run, datasets)
            segment = Segment(
                settings=self.settings,
                run=self.run,
                plan=plan,
                source=source,
                datasets=datasets,
                trainer=trainer,
                first_objective=lambda: self._objective(plan, True),
                threads=threads,
                trackers=trackers,
                held_out_kid=HeldOutKid(held, device) if held and ranks().is_first else None,
                listener=self.listener,
            )
            first = segment.restore()
            ranks().agree({"the checkpoint's step": first})
            ranks().begin(device)
            here = environment(device)
            notes, changes = _keep(self.run, self.settings, plan, trainer.total_steps)
            self.listener.warn(*notes, *keep_environment(self.run, first, here))
            return segment.go(changes)

    def _threads(self, plan: Plan) -> Threads:
        """The CPU threads to compute with from here on."""
        number = self.settings.threads
        if ranks().is_group:
            threads = shared_threads(number, own_threads())
        elif self.run is None or number is None:  # a run of a version that kept no number has none
            threads = training_threads(plan, number, self.settings.deterministic)
        else:
            threads = Threads(number, "as the run was, or as asked")
        self.stack.enter_context(using_threads(threads.number))
        self.settings = dataclasses.replace(self.settings, threads=threads.number)
        return threads

    def _check_images(self, run: Run, datasets: Datasets) -> None:
        """Raises: DataError unless the training images are those that the run began with."""
        config, counts = read_config(run), (len(datasets.a), len(datasets.b))
        if config.data_fingerprint != datasets.fingerprint:
            here, then = (f"{a:,} and {b:,}" for a, b in (counts, config.training_images))
            raise DataError(
                f"{run.path}: the training images are not those of the run ({here} here, {then} then); resume with the same "
                "images under the same names, and with testA and testB if it had them (without, a tenth is cut off as such)"
            )
        if changed_settings(self.settings, read_config(run).settings, PLACES):
            self.listener.tell(Note(f"{run.path}: the images are found elsewhere, and are the same by content"))

    @contextmanager
    def _memory_reported(self, plan: Plan, device: torch.device) -> Iterator[None]:
        """Turn any lack of memory into one line.

        Raises:
            OutOfMemory: naming batch size, image size and precision with their values.
        """
        try:
            yield
        except (MemoryError, RuntimeError, OSError) as error:
            if not is_out_of_memory(error):
                raise
            step = 0 if self.run is None else self.run.saved_step
            kept = f"the checkpoint of step {step} stays, to --resume where there is more" if step else "nothing was saved yet"
            raise OutOfMemory(
                f"out of memory on {device} with --batch-size {plan.recipe.batch_size}, --image-size "
                f"{plan.recipe.image_size_px} and --precision {plan.precision}: a new run with one of them lower (bf16 takes "
                f"less than fp32) needs less; {kept}"
            ) from error

    def _facts(self, plan: Plan, datasets: Datasets, device: torch.device) -> dict[str, Any]:
        """What must be the same in all processes, as JSON values."""
        images = {f"the images of {domain}": getattr(datasets, domain).fingerprint for domain in "ab"}
        versions = {"fruitgan": fruitgan.__version__, "torch": torch.__version__, "device": device.type}
        return {**versions, **images, "--on-nan": self.settings.on_nan, **to_json(plan)}

    def _source(self) -> Source:
        """Where the images are. A resumed run names its domains as it did, whatever the folder is called now."""
        settings, run = self.settings, self.run
        domains = settings.domains if run is None else read_config(run).domains
        try:
            return find_source(settings.data, settings.data_a, settings.data_b, domains, self.listener.tell)
        except (DataError, UsageError) as error:
            if run is None or changed_settings(settings, read_config(run).settings, PLACES):
                raise
            raise type(error)(f"{error}; where the images lie elsewhere by now: --resume {run.path.name} --data DIR") from error

    def _objective(self, plan: Plan, is_start: bool) -> Objective:
        """With the weights that a training starts from, or such as a checkpoint is to be read into."""
        objective = make_objective(plan)
        if self.settings.init_from is not None and is_start:
            self.init_sha256 = load_generators(objective, self.settings.init_from, plan)
        give_teacher(objective, self.settings.teacher, plan.recipe.image_size_px)
        return objective

    def _create(self, plan: Plan, datasets: Datasets, source: Source, trainer: Trainer, device: torch.device) -> Run:
        name = self.settings.name or free_name(self.settings.out, f"{source.name}-{plan.recipe_name}")
        asked = dataclasses.replace(
            self.settings,
            recipe=plan.recipe_name,
            image_size=plan.recipe.image_size_px,
            batch_size=plan.recipe.batch_size,
            precision=plan.precision,
            seed=plan.seed,
        )
        config = RunConfig(
            settings=asked,
            plan=plan,
            total_steps=trainer.total_steps,
            steps_per_epoch=trainer.steps_per_epoch,
            domains=(source.a.name, source.b.name),
            training_images=(len(datasets.a), len(datasets.b)),
            data_fingerprint=datasets.fingerprint,
            held_out_images=(len(datasets.held_out[0]), len(datasets.held_out[1])) if datasets.held_out else None,
            init_sha256=self.init_sha256,
            launch=ranks().launch,
        )
        return Run.create(self.settings.out / name, config, environment(device))


def _found(asked: TrainGanSettings) -> Run:
    """The run that `--resume` means; for RUN@STEP a new one, which begins as that run was then."""
    wanted = asked.resume or ""
    at = bundles.AT_STEP.fullmatch(wanted)
    if at is None or (asked.out / wanted).exists() or Path(wanted).exists():
        return find_run(asked.out, wanted)
    if asked.name is None:
        raise UsageError(f"--resume {wanted} begins a new run from an earlier checkpoint: give it a name with --name")
    run = find_run(asked.out, at[1])
    _resumed_plan(run, resumed_settings(run, dataclasses.replace(asked, name=None)))
    return run.forked(int(at[2]), asked.out / asked.name)


def _resumed_plan(run: Run, settings: TrainGanSettings) -> Plan:
    """The plan of the run, so that a recipe that was edited since does not change it, with what is asked to change now.

    Raises:
        UsageError: a change that the steps done so far would not have.
    """
    plan = read_config(run).plan
    recipe = changed_recipe(plan.recipe, settings.recipe_changes, settings.learning_rate, settings.cycle_weight)
    for field in changed_fields(plan.recipe, recipe):
        if field in LENGTHS:
            raise UsageError(f"--set {field} with --resume: give --{field}")
        if not LATER_FIELDS.fullmatch(field) or (field == "ema_decay" and None in (plan.recipe.ema_decay, recipe.ema_decay)):
            raise UsageError(f"--set {field} cannot change in a resumed run ({run.path}); start a new one for it")
    if settings.steps is not None or settings.epochs is not None:
        recipe = dataclasses.replace(recipe, steps=settings.steps, epochs=settings.epochs)
    return dataclasses.replace(plan, recipe=recipe)


def _changes(run: Run, plan: Plan) -> dict[str, str]:
    """The fields of the run's recipe that change, its length apart."""
    fields = changed_fields(read_config(run).plan.recipe, plan.recipe)
    return {field: change for field, change in fields.items() if field not in LENGTHS}


def _keep(run: Run, settings: TrainGanSettings, plan: Plan, total_steps: int) -> tuple[list[str], dict[str, str]]:
    """Keep in the run's config what it is resumed with; notes on what changed, and the changed fields of the recipe."""
    config, fields = read_config(run), _changes(run, plan)
    merged = {name: getattr(settings, name) for name in (*PLACES, *KEPT, "steps", "epochs")}
    stored, launch = dataclasses.replace(config.settings, **merged), ranks().launch
    is_again = ranks().restarts and config.launch == launch
    began = None if launch is None else config.launch_began if is_again else time.time()
    kept = dataclasses.replace(config, total_steps=total_steps, plan=plan, settings=stored, launch=launch, launch_began=began)
    if kept != config:
        run.write(CONFIG, kept)
    changes = changed_settings(settings, config.settings, KEPT)
    if total_steps != config.total_steps:
        changes.append(f"{total_steps} steps instead of {config.total_steps}, over which the schedules now run")
    changes += [f"{field} {change}" for field, change in fields.items()]
    return [f"goes on with {', '.join(changes)}"] if changes else [], fields
