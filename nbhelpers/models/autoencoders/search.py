"""Search for training settings that reconstruct unseen good images well, on training images only.

The search minimises the reconstruction error of good images, since no defect may be used before the
test. **A lower error need not mean a better detector**: a network that copies its input has no
error and finds no defect. The search only tells which settings train well.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd
import torch
from torch import nn
from tqdm import tqdm

from nbhelpers.config import digest
from nbhelpers.config.autoencoders import SearchConfig, TrainingConfig
from nbhelpers.data.images import make_loader
from nbhelpers.data.layout import Sample
from nbhelpers.errors import ConfigError, DivergenceError
from nbhelpers.files import locked, remove, write_text
from nbhelpers.models.autoencoders.networks.base import BaseAutoencoder
from nbhelpers.models.autoencoders.pixels import PIXELS
from nbhelpers.models.autoencoders.training.batches import derived_seed, hold_out
from nbhelpers.models.autoencoders.training.trainer import train

if TYPE_CHECKING:
    import optuna

TRIALS, STORAGE = "trials.csv", "trials.db"
FEWEST = 3  # trials that are needed to estimate the importance of the settings


def search(
    build: Callable[[], BaseAutoencoder],
    criterion: nn.Module | None,
    samples: Sequence[Sample],
    settings: TrainingConfig,
    space: SearchConfig,
    *,
    corruption: str = "none",
    groups: Sequence[Hashable] | None = None,
    seed: int,
    device: str,
    loader: Mapping[str, Any],
    folder: Path,
) -> pd.DataFrame:
    """Train ``space.trials`` networks with settings that Optuna's TPE sampler draws, and rank them.

    A share of the samples is held out of all trainings (each training holds out some more for its
    early stopping). On these samples each network is measured by the mean squared error of its
    reconstructions, with pixels in [-1, 1], which means the same for every loss. A search that was
    killed resumes in its folder, even within a trial, and draws the same settings. A finished
    search can be continued with more trials.

    Args:
        build: Makes the untrained network, with the same weights each time.
        criterion: See ``train``.
        samples: Good training images.
        settings: The settings that the search does not vary.
        space: The settings that it varies, and for how many epochs each network is trained.
        corruption: See ``train``.
        groups: See ``train``.
        seed: See ``train``; it also seeds the sampler.
        device: See ``train``.
        loader: See ``train``.
        folder: A folder for this search only; its name must change with everything except the
            number of trials.

    Returns:
        One row per trial, the best first, with the columns ``rank``, ``trial`` (from 1),
        ``held_out_mse``, the settings, ``epochs``, ``best_epoch`` and ``seconds``. A trial that
        diverged comes last and has its settings only. The table is also written to trials.csv.

    Raises:
        ConfigError: If the trainings are no longer than the warm-up.
        DivergenceError: If all trials diverged.
        DataError: See ``train``; this and the following errors end the search.
        ModelError: See ``train``.
        ResourceError: See ``train``.
    """
    if space.epochs <= settings.warmup_epochs:
        raise ConfigError(
            f"autoencoder.search.epochs: expected more than training.warmup_epochs "
            f"({settings.warmup_epochs}), found {space.epochs}; set search.epochs higher"
        )
    keys = range(len(samples)) if groups is None else groups
    keyed_samples = list(zip(samples, keys, strict=True))
    kept, left_out = hold_out(keyed_samples, settings.held_out_share, seed, "search", keys)
    training, training_groups = zip(*kept, strict=True)
    held_out = [sample for sample, _ in left_out]
    work = folder / "trial"
    with locked(folder):
        import optuna

        study = open_trials(folder)
        # only a killed search can have left running trials, since this one holds the lock
        for trial in study.get_trials(states=[optuna.trial.TrialState.RUNNING]):
            study.tell(trial.number, state=optuna.trial.TrialState.FAIL)
        done = len(_finished(study))
        for index in tqdm(
            range(done, space.trials), desc="search", unit="trial", initial=done, total=space.trials
        ):
            # each trial has its own sampler: a sampler's generator would be lost in a killed search
            study.sampler = optuna.samplers.TPESampler(seed=derived_seed(seed, "trial", index))
            asked = study.ask()
            drawn = settings.model_copy(
                update={**_draw(asked, space), "epochs": space.epochs, "trackers": ()}
            )
            network = build()
            try:
                trained = train(
                    network,
                    criterion,
                    training,
                    drawn,
                    corruption=corruption,
                    groups=training_groups,
                    seed=seed,
                    device=device,
                    loader=loader,
                    folder=work / digest(drawn.model_dump()),
                )
            except DivergenceError:  # a result as well: the sampler takes it as the worst
                study.tell(asked, state=optuna.trial.TrialState.PRUNED)
            else:
                for name in ("epochs", "best_epoch", "seconds_training"):
                    asked.set_user_attr(name, trained.stats[name])
                study.tell(asked, _error(network, held_out, drawn.batch_size, device))
            _conclude(study, folder, work)
        # needed if a search was killed right after its last trial
        table = _conclude(study, folder, work)
    if table.held_out_mse.isna().all():
        raise DivergenceError(
            f"{folder / TRIALS}: expected a trial whose loss stays finite, found none in "
            f"{len(table)}; lower autoencoder.search.learning_rate"
        )
    return table


def open_trials(folder: Path) -> optuna.Study:
    """Open the trials in a search's folder as an Optuna study, which is empty if there are none."""
    import optuna

    folder.mkdir(parents=True, exist_ok=True)
    with _silent():
        storage = optuna.storages.RDBStorage(f"sqlite:///{(folder / STORAGE).as_posix()}")
        return optuna.create_study(storage=storage, study_name="search", load_if_exists=True)


def importance(study: optuna.Study) -> dict[str, float]:
    """Estimate how much each setting matters for being among the best tenth of the trials.

    The estimate is Optuna's PED-ANOVA. With few trials it is only a hint.

    Returns:
        The share of each setting, by name, the largest first; the shares sum to 1. With fewer than
        three trials the result is empty.
    """
    import optuna

    if len(_measured(study)) < FEWEST:
        return {}
    # named explicitly, since older versions of Optuna have another default
    evaluator = optuna.importance.PedAnovaImportanceEvaluator()
    shares = optuna.importance.get_param_importances(study, evaluator=evaluator)
    return dict(sorted(shares.items(), key=lambda item: -item[1]))


def _finished(study: optuna.Study) -> list[optuna.trial.FrozenTrial]:
    """Return the trials that need not be repeated: those that were measured or that diverged."""
    import optuna

    states = [optuna.trial.TrialState.COMPLETE, optuna.trial.TrialState.PRUNED]
    return study.get_trials(deepcopy=False, states=states)


def _measured(study: optuna.Study) -> list[optuna.trial.FrozenTrial]:
    """Return the trials that did not diverge."""
    return [trial for trial in _finished(study) if trial.value is not None]


def _draw(trial: optuna.Trial, space: SearchConfig) -> dict[str, Any]:
    """Draw one value of each setting: rates on a logarithmic scale, others from their choices."""
    return {
        "learning_rate": trial.suggest_float("learning_rate", *space.learning_rate, log=True),
        "weight_decay": trial.suggest_float("weight_decay", *space.weight_decay, log=True),
        "optimizer": trial.suggest_categorical("optimizer", space.optimizer),
        "batch_size": trial.suggest_categorical("batch_size", space.batch_size),
    }


def _error(
    network: BaseAutoencoder, samples: Sequence[Sample], batch_size: int, device: str
) -> float:
    """Compute the mean squared reconstruction error of the samples, with pixels in [-1, 1]."""
    loader = make_loader(
        samples, network.image_size, batch_size, phase="train", normalization=PIXELS.normalization
    )
    errors = [network.reconstruction_error(batch.images.to(device)).cpu() for batch in loader]
    return float(torch.cat(errors).double().mean())


def _conclude(study: optuna.Study, folder: Path, work: Path) -> pd.DataFrame:
    """Write the table of the finished trials, and remove their trainings, which are not needed."""
    remove(work)
    table = _table(study)
    write_text(folder / TRIALS, table.to_csv(index=False, lineterminator="\n"))
    return table


def _table(study: optuna.Study) -> pd.DataFrame:
    """Make the table that ``search`` returns."""
    rows = [
        {
            "trial": number,
            "held_out_mse": trial.value,
            **trial.params,
            "epochs": trial.user_attrs.get("epochs"),
            "best_epoch": trial.user_attrs.get("best_epoch"),
            "seconds": trial.user_attrs.get("seconds_training"),
        }
        for number, trial in enumerate(_finished(study), start=1)
    ]
    table = (
        pd.DataFrame(rows)
        .astype({"held_out_mse": float})
        .sort_values(["held_out_mse", "trial"], ignore_index=True)
    )
    table.insert(0, "rank", range(1, len(table) + 1))
    return table


@contextmanager
def _silent() -> Iterator[None]:
    """Hide Optuna's notes: the progress bar and the table say the same."""
    import optuna

    before = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    try:
        yield
    finally:
        optuna.logging.set_verbosity(before)
