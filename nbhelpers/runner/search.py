"""Search for training settings of one autoencoder on one category's training images.

    study search --category hazelnut --architecture cnn
    study search --category carpet --architecture unet --trials 40 --set key=value
    study search --profile folder --data-root DIR --category bottle --architecture vit

No test image is looked at. Run again with more trials it goes on; interrupted, it goes on where it
stopped. What it lowers is the reconstruction error of good images: a lower one need not mean a
better detector. Exit code 0: the table is written; 2: correct the input or a setting.
"""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nbhelpers.config import digest
from nbhelpers.config.autoencoders import BOOKKEEPING, NetworksConfig
from nbhelpers.methods import ARCHITECTURES
from nbhelpers.runner.command_line import add_study_options, shown, study_overrides
from nbhelpers.sources import code_of

if TYPE_CHECKING:
    from nbhelpers.study import Study


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the options of ``study search``."""
    add = parser.add_argument
    networks = list(NetworksConfig.model_fields)
    add("--category", required=True, help="the category whose training images are used")
    add("--architecture", required=True, choices=networks, help="the network that is trained")
    add(
        "--trials",
        type=int,
        metavar="N",
        help="number of trainings in all (default: as configured)",
    )
    add_study_options(parser)


def search_recipe(study: "Study", category: str, architecture: str) -> dict[str, Any]:
    """Collect everything that the result of a search depends on, except its number of trials."""
    from nbhelpers.models.autoencoders.networks.registry import architecture_class  # imports torch

    config, options = study.config, study.config.autoencoder
    module = ARCHITECTURES[architecture].class_path.partition(":")[0]
    rule = config.splits.groups.get(category)
    uses_criterion = architecture_class(architecture).uses_criterion
    return {
        **code_of("models.autoencoders.search", f"models.{module}", "models.autoencoders.losses"),
        "groups": None if rule is None else rule.model_dump(),
        "network": getattr(options.networks, architecture).model_dump(exclude={"head", "training"}),
        "loss": options.loss.model_dump() if uses_criterion else None,
        "search": options.search.model_dump(exclude={"trials"}),
        "training": options.training_of(architecture).model_dump(exclude=set(BOOKKEEPING)),
        "backbone": config.backbone.model_dump(),
        "layers": options.scoring.feature_layers,
        "image_size": config.data.image_size,
        "seed": config.seed,
        "device": study.device,
        "threads": config.threads,
        "images": study.domain_key(category, "clean"),
    }


def search_settings(study: "Study", category: str, architecture: str) -> Path:
    """Search, print the ranked trials and draw them.

    Args:
        study: The study whose images and settings are used.
        category: The category whose good training images are used.
        architecture: The network's name.

    Returns:
        The folder with ``trials.csv`` and ``search.png``.

    Raises:
        StudyError: See ``nbhelpers.models.autoencoders.search.search``.
    """
    import matplotlib

    from nbhelpers.data.splits import group_keys
    from nbhelpers.figures.search import plot_search
    from nbhelpers.figures.style import save_figure, use_style
    from nbhelpers.models.autoencoders.losses import build_loss
    from nbhelpers.models.autoencoders.networks.registry import build_network
    from nbhelpers.models.autoencoders.search import importance, open_trials, search
    from nbhelpers.models.backbones import Backbone

    config, settings = study.config, study.config.autoencoder
    recipe = search_recipe(study, category, architecture)
    folder = config.output_dir / "search" / f"{architecture}_{category}_{digest(recipe)}"
    network = getattr(settings.networks, architecture)
    samples = study.training(category, fitted_on="clean")
    keys = group_keys(samples, config.splits.groups.get(category))

    def feature_backbone() -> Backbone:
        return Backbone(config.backbone.name, recipe["layers"], config.backbone.weights)

    table = search(
        lambda: build_network(
            architecture, config.data.image_size, seed=config.seed, **network.sizes
        ),
        build_loss(settings.loss, feature_backbone) if recipe["loss"] else None,
        samples,
        settings.training_of(architecture),
        settings.search,
        corruption=network.corruption,
        groups=[keys[sample.id] for sample in samples],
        seed=config.seed,
        device=study.device,
        loader=config.loader.model_dump(),
        folder=folder,
    )
    print(table.to_string(index=False, float_format="%.4g"))
    shares = importance(open_trials(folder))
    if shares:
        print("importance  " + ", ".join(f"{name} {share:.2f}" for name, share in shares.items()))
    matplotlib.use("Agg")  # figures go to files
    use_style()
    save_figure(plot_search(table, shares), folder / "search.png")
    return folder


def command(options: argparse.Namespace) -> int:
    """Search and say where the table and the figure are; returns the exit code.

    Raises:
        StudyError: The input or a setting must be corrected.
    """
    overrides = study_overrides(options)
    if options.trials is not None:
        overrides["autoencoder.search.trials"] = options.trials
    from nbhelpers.study import open_study  # slow, so after the options are checked

    study = open_study(options.profile, overrides)
    folder = search_settings(study, options.category, options.architecture)
    print(f"table   {shown(folder / 'trials.csv')}")
    print(f"figure  {shown(folder / 'search.png')}")
    return 0
