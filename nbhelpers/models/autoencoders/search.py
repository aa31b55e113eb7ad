"""Search for training settings that reconstruct unseen good images well, on training images only.

What is lowered is the reconstruction error of good images, since no defect may be looked at before
the test. **A lower error need not mean a better detector**: a network that copies whatever it sees
has none, and finds nothing. The search says which settings train well, no more.
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
FEWEST = 3  # trials without which no setting's importance can be told


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
    """Train ``space.trials`` networks with settings that Optuna's TPE draws, and rank them.

    A share of the samples is held out of all trainings (each of which holds out some more, for its
    early stopping), and measures them: mean squared error of the reconstructions, pixels in [-1,
    1]. It means the same for every loss. A search that was killed goes on in its folder, within the
    trial too, and draws what it would have drawn. One that is done can be asked for more trials.

    Args:
        build: Gives the network, untrained, with the same weights each time.
        criterion: See ``train``.
        samples: Good training images.
        settings: What the search does not vary.
        space: What it varies, and for how long each network is trained.
        corruption, groups, seed, device, loader: See ``train``.
        folder: This search's own; its name must change with anything but the number of trials.

    Returns:
        One row a trial, the best first: rank, trial (from 1), held_out_mse, the settings, epochs,
            best_epoch, seconds.
        A trial that diverged comes last and has settings only. The table is also written, to
        trials.csv.

    Raises:
        ConfigError: trainings no longer than the warm-up.
        DivergenceError: all trials diverged.
        DataError, ModelError, ResourceError: see ``train``; the trial that fails so ends the
            search.
    """
    if space.epochs <= settings.warmup_epochs:
        raise ConfigError(
            f"autoencoder.search.epochs: expected more than training.warmup_epochs "
            f"({settings.warmup_epochs}), found {space.epochs}; set search.epochs higher"
        )
    keys = range(len(samples)) if groups is None else groups
    kept, left_out = hold_out(
        list(zip(samples, keys, strict=True)), settings.held_out_share, seed, "search", keys
    )
    training, training_groups = zip(*kept, strict=True)
    held_out, work = [sample for sample, _ in left_out], folder / "trial"
    with locked(folder):
        import optuna

        study = open_trials(folder)
        for left in study.get_trials(
            states=[optuna.trial.TrialState.RUNNING]
        ):  # of a killed search: we hold the lock
            study.tell(left.number, state=optuna.trial.TrialState.FAIL)
        done = len(_finished(study))
        for index in tqdm(
            range(done, space.trials), desc="search", unit="trial", initial=done, total=space.trials
        ):
            # a sampler of each trial's own, since its generator does not outlive a killed process
            study.sampler = optuna.samplers.TPESampler(seed=derived_seed(seed, "trial", index))
            trial = study.ask()
            drawn = settings.model_copy(
                update={**_draw(trial, space), "epochs": space.epochs, "trackers": ()}
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
            except DivergenceError:  # a finding too; to the sampler it is worse than any error
                study.tell(trial, state=optuna.trial.TrialState.PRUNED)
            else:
                for name in ("epochs", "best_epoch", "seconds_training"):
                    trial.set_user_attr(name, trained.stats[name])
                study.tell(trial, _error(network, held_out, drawn.batch_size, device))
            _conclude(study, folder, work)
        table = _conclude(
            study, folder, work
        )  # also where a search was killed right after its last trial
    if table.held_out_mse.isna().all():
        raise DivergenceError(
            f"{folder / TRIALS}: expected a trial whose loss stays finite, found none in "
            f"{len(table)}; lower autoencoder.search.learning_rate"
        )
    return table


def open_trials(folder: Path) -> optuna.Study:
    """The trials in a search's folder, as Optuna knows them; an empty study if there are none."""
    import optuna

    folder.mkdir(parents=True, exist_ok=True)
    with _silent():
        storage = optuna.storages.RDBStorage(f"sqlite:///{(folder / STORAGE).as_posix()}")
        return optuna.create_study(storage=storage, study_name="search", load_if_exists=True)


def importance(study: optuna.Study) -> dict[str, float]:
    """Share of each setting in what sets the best tenth of the trials apart (PED-ANOVA), largest
    first, sum 1.

    With few trials this is a hint at most; with fewer than three the result is empty.
    """
    import optuna

    if len(_measured(study)) < FEWEST:
        return {}
    # named, since older versions have another default
    evaluator = optuna.importance.PedAnovaImportanceEvaluator()
    shares = optuna.importance.get_param_importances(study, evaluator=evaluator)
    return dict(sorted(shares.items(), key=lambda item: -item[1]))


def _finished(study: optuna.Study) -> list[optuna.trial.FrozenTrial]:
    """Trials that are not to be repeated: measured ones, and those that diverged."""
    import optuna

    states = [optuna.trial.TrialState.COMPLETE, optuna.trial.TrialState.PRUNED]
    return study.get_trials(deepcopy=False, states=states)


def _measured(study: optuna.Study) -> list[optuna.trial.FrozenTrial]:
    return [trial for trial in _finished(study) if trial.value is not None]


def _draw(trial: optuna.Trial, space: SearchConfig) -> dict[str, Any]:
    """A setting of each: rates on a logarithmic scale, choices as they are."""
    return {
        "learning_rate": trial.suggest_float("learning_rate", *space.learning_rate, log=True),
        "weight_decay": trial.suggest_float("weight_decay", *space.weight_decay, log=True),
        "optimizer": trial.suggest_categorical("optimizer", space.optimizer),
        "batch_size": trial.suggest_categorical("batch_size", space.batch_size),
    }


def _error(
    network: BaseAutoencoder, samples: Sequence[Sample], batch_size: int, device: str
) -> float:
    """Mean squared reconstruction error of the samples, pixels in [-1, 1]."""
    loader = make_loader(
        samples, network.image_size, batch_size, phase="train", normalization=PIXELS.normalization
    )
    errors = [network.reconstruction_error(batch.images.to(device)).cpu() for batch in loader]
    return float(torch.cat(errors).double().mean())


def _conclude(study: optuna.Study, folder: Path, work: Path) -> pd.DataFrame:
    """Write the table of the trials that are finished; their trainings are not needed any more."""
    remove(work)
    table = _table(study)
    write_text(folder / TRIALS, table.to_csv(index=False, lineterminator="\n"))
    return table


def _table(study: optuna.Study) -> pd.DataFrame:
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
    """Optuna's notes off: the bar and the table say the same."""
    import optuna

    before = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    try:
        yield
    finally:
        optuna.logging.set_verbosity(before)
