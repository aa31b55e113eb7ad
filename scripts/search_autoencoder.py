"""Search for training settings of one autoencoder on one category's training images; no test image
is looked at.

    python scripts/search_autoencoder.py --category hazelnut --architecture cnn
    python scripts/search_autoencoder.py --profile folder --data-root DIR --category bottle
    --architecture vit python scripts/search_autoencoder.py --category carpet --architecture unet
    --trials 40 --set key=value

Run again with more trials, it goes on; killed, it goes on where it stopped. What it lowers is the
reconstruction error of good images: a lower one need not mean a better detector. Exit code 0: the
table is written; 2: mend the input or a setting.
"""

import sys
from argparse import Namespace
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import matplotlib

from nbhelpers.config.autoencoders import BOOKKEEPING, NetworksConfig
from nbhelpers.errors import StudyError
from nbhelpers.methods import ARCHITECTURES
from nbhelpers.runner.command_line import shown, study_overrides, study_parser
from nbhelpers.sources import code_of

if TYPE_CHECKING:
    from nbhelpers.study import Study


def parse(arguments: Sequence[str] | None) -> Namespace:
    """The command line."""
    parser = study_parser(__doc__)
    add = parser.add_argument
    add("--category", required=True, help="whose training images")
    add(
        "--architecture",
        required=True,
        choices=list(NetworksConfig.model_fields),
        help="which network",
    )
    add("--trials", type=int, metavar="N", help="trainings in all (default: as configured)")
    return parser.parse_args(arguments)


def search_recipe(study: "Study", category: str, architecture: str) -> dict[str, Any]:
    """All that a search depends on but its number of trials."""
    from nbhelpers.models.autoencoders.networks.registry import architecture_class  # slow

    config, options = study.config, study.config.autoencoder
    module = ARCHITECTURES[architecture].class_path.partition(":")[0]
    rule = config.splits.groups.get(category)
    return {
        **code_of("models.autoencoders.search", f"models.{module}", "models.autoencoders.losses"),
        "groups": None if rule is None else rule.model_dump(),
        "network": getattr(options.networks, architecture).model_dump(exclude={"head", "training"}),
        "loss": options.loss.model_dump()
        if architecture_class(architecture).uses_criterion
        else None,
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


def run(options: Namespace) -> Path:
    """Search, print the table, draw the figure; returns the folder.

    Raises:
        StudyError: The input or a setting must be mended.
    """
    overrides = study_overrides(options)
    if options.trials is not None:
        overrides["autoencoder.search.trials"] = options.trials
    from nbhelpers.config import (
        digest,
    )  # slow, all of these, so only once the command line is right
    from nbhelpers.data.splits import group_keys
    from nbhelpers.figures.search import plot_search
    from nbhelpers.figures.style import save_figure, use_style
    from nbhelpers.models.autoencoders.losses import build_loss
    from nbhelpers.models.autoencoders.networks.registry import build_network
    from nbhelpers.models.autoencoders.search import importance, open_trials, search
    from nbhelpers.models.backbones import Backbone
    from nbhelpers.study import open_study

    study = open_study(options.profile, overrides)
    config, settings = study.config, study.config.autoencoder
    recipe = search_recipe(study, options.category, options.architecture)
    folder = (
        config.output_dir / "search" / f"{options.architecture}_{options.category}_{digest(recipe)}"
    )
    network, training = (
        getattr(settings.networks, options.architecture),
        settings.training_of(options.architecture),
    )
    samples = study.training(options.category, fitted_on="clean")
    keys = group_keys(samples, config.splits.groups.get(options.category))

    def eyes() -> Backbone:
        return Backbone(config.backbone.name, recipe["layers"], config.backbone.weights)

    table = search(
        lambda: build_network(
            options.architecture, config.data.image_size, seed=config.seed, **network.sizes
        ),
        build_loss(settings.loss, eyes) if recipe["loss"] else None,
        samples,
        training,
        settings.search,
        corruption=network.corruption,
        groups=[keys[sample.id] for sample in samples],
        seed=config.seed,
        device=study.device,
        loader=config.loader.model_dump(),
        folder=folder,
    )
    print(table.to_string(index=False, float_format="%.4g"))
    weights = importance(open_trials(folder))
    if weights:
        print("importance  " + ", ".join(f"{name} {share:.2f}" for name, share in weights.items()))
    matplotlib.use("Agg")  # figures go to files
    use_style()
    save_figure(plot_search(table, weights), folder / "search.png")
    return folder


def main(arguments: Sequence[str] | None = None) -> int:
    """Entry point: named errors become one line and exit code 2."""
    try:
        folder = run(parse(arguments))
    except StudyError as error:
        print(f"{type(error).__name__}: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("\nstopped; run again to go on from here", file=sys.stderr)
        return 130
    print(f"table   {shown(folder / 'trials.csv')}")
    print(f"figure  {shown(folder / 'search.png')}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
