"""Speed and memory against anomalib, in one run on one machine: a ratio to a named peer, never a
time alone.

    python scripts/benchmark.py coreset
    python scripts/benchmark.py coreset --data-root DIR --category mvtec_bottle
    python scripts/benchmark.py patchcore --data-root DIR --categories a,b
    python scripts/benchmark.py padim --data-root DIR --categories a,b --seeds 42,43,44

``coreset`` times the selection alone, on 133280 x 152 synthetic features or on those of real
images. ``patchcore`` and ``padim`` compare fit, prediction, memory and accuracy; each side runs in a
process of its own, so that its peak memory is its own. Results are printed and written to
outputs/benchmark/.
"""

from __future__ import annotations

import os

# Read when tqdm is imported, by torch: progress bars cost the side that draws them.
os.environ["TQDM_DISABLE"] = "1"

import argparse
import json
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import pandas as pd
import torch

from nbhelpers.data.images import make_loader
from nbhelpers.data.layout import Sample, scan_category
from nbhelpers.errors import DataError, ModelError
from nbhelpers.evaluation.metrics import PIXEL_METRICS, pixel_metrics
from nbhelpers.files import write_json
from nbhelpers.models.backbones import Backbone
from nbhelpers.models.padim import Padim
from nbhelpers.models.patchcore.coreset import coreset_size, covering_radius, greedy_coreset
from nbhelpers.models.patchcore.detector import PatchCore
from nbhelpers.runner.command_line import exit_code
from nbhelpers.runtime import ROOT, peak_memory_mb, pick_device, provenance

LAYERS = {"patchcore": ("blocks.2", "blocks.4"), "padim": ("blocks.1", "blocks.2", "blocks.4")}
N_FEATURES = 100
SHOWN = (
    "image_auroc",
    "image_ap",
    "pixel_auroc",
    "aupro",
    "bank",
    "fit_s",
    "predict_ms",
    "peak_mb",
)


def make_backbone(method: str) -> Backbone:
    """Build EfficientNet-Lite0 with its packaged weights, which needs no download."""
    return Backbone("tf_efficientnet_lite0", LAYERS[method], "packaged")


def timed(work: Callable[[], Any], device: str) -> tuple[Any, float]:
    """Give the result of ``work`` and the seconds that it took; a GPU is waited for."""
    begin = time.perf_counter()
    result = work()
    if device == "cuda":
        torch.cuda.synchronize()
    return result, time.perf_counter() - begin


def mixture(n_points: int, dim: int, seed: int) -> torch.Tensor:
    """Draw features like a network's, ``(N, D)`` float32: non-negative clusters of unequal size and
    spread.
    """
    rng = np.random.default_rng(seed)
    centres = rng.gamma(1.0, 1.0, (60, dim)).astype(np.float32)
    member = rng.choice(60, n_points, p=rng.dirichlet(np.ones(60)))
    spread = rng.gamma(2.0, 0.2, 60).astype(np.float32)[member, None]
    noise = rng.standard_normal((n_points, dim), dtype=np.float32)
    return torch.from_numpy(np.maximum(centres[member] + spread * noise, 0))


def load_features(options: argparse.Namespace) -> torch.Tensor:
    """Give the features that the command line names, on the device."""
    if options.data_root is None:
        return mixture(options.n, options.dim, options.seed).to(options.device)
    samples = [s for s in scan_category(options.data_root, options.category) if not s.label]
    features = PatchCore(make_backbone("patchcore"), device=options.device).patch_features(samples)
    if len(features) < options.n:
        raise DataError(
            f"{options.category}: expected {options.n} patches, found {len(features)}; give a "
            "smaller --n"
        )
    return features[: options.n].contiguous()


def peer_coreset(features: torch.Tensor, ratio: float, start: int, project: bool) -> torch.Tensor:
    """Give anomalib's picks from a given start, with its random projection or without."""
    from anomalib.models.components.sampling import KCenterGreedy

    sampler: Any = KCenterGreedy(features, ratio)
    if not project:
        sampler.model.fit = lambda _: None
        sampler.model.transform = lambda embedding: embedding
    # Its first pick comes from the global generator, which here gives ours.
    first = torch.tensor([start], device=features.device)
    with mock.patch.object(torch, "randint", lambda **_: first):
        return torch.tensor(sampler.select_coreset_idxs(), device=features.device)


def run_coreset(options: argparse.Namespace) -> pd.DataFrame:
    """Time our selection, then anomalib's without and with its projection, on the same features from
    the same start.
    """
    import anomalib.models.components.sampling  # noqa: F401  (before the clock starts)

    features = load_features(options)
    count, start = coreset_size(len(features), options.ratio), options.seed % len(features)
    runs = {"ours": lambda: greedy_coreset(features, count, start=start, progress=False)}
    if not options.skip_peer:
        runs["anomalib, no projection"] = lambda: peer_coreset(
            features, options.ratio, start, False
        )
        runs["anomalib, as shipped"] = lambda: peer_coreset(features, options.ratio, start, True)
    rows: list[dict[str, Any]] = []
    reference = None
    for name, work in runs.items():
        # ours takes seconds, in which another process weighs much: the median of three runs
        times = [timed(work, options.device) for _ in range(3 if name == "ours" else 1)]
        picks, seconds = sorted(times, key=lambda run: run[1])[len(times) // 2]
        reference = picks if reference is None else reference
        rows.append(
            {
                "side": name,
                "points": len(features),
                "dim": features.shape[1],
                "picks": len(picks),
                "seconds": round(seconds, 2),
                "ratio": round(seconds / rows[0]["seconds"], 1) if rows else 1.0,
                "same picks": bool(torch.equal(picks, reference)),
                "radius": round(covering_radius(features, picks), 4),
            }
        )
        print(json.dumps(rows[-1]), file=sys.stderr, flush=True)
    return pd.DataFrame(rows)


def run_ours(
    train: list[Sample], test: list[Sample], options: argparse.Namespace
) -> dict[str, Any]:
    """Fit and predict with this study's detector."""
    backbone = make_backbone(options.method)
    model: PatchCore | Padim
    if options.method == "patchcore":
        model = PatchCore(
            backbone, coreset_ratio=options.ratio, seed=options.seed, device=options.device
        )
    else:
        model = Padim(backbone, n_features=N_FEATURES, seed=options.seed, device=options.device)
    _, fit = timed(lambda: model.fit(train), options.device)
    predictions, predict = timed(lambda: model.predict(test), options.device)
    bank = int(model.stats.get("bank_size", 0))
    return measure(
        predictions.image_scores, predictions.anomaly_maps, predictions, bank, fit, predict
    )


def run_peer(
    train: list[Sample], test: list[Sample], options: argparse.Namespace
) -> dict[str, Any]:
    """Fit and predict with anomalib's torch model, on the same images, network, layers and settings."""
    from anomalib.models.image.padim.torch_model import PadimModel
    from anomalib.models.image.patchcore.torch_model import PatchcoreModel

    peers: dict[str, tuple[Any, dict[str, Any]]] = {
        "patchcore": (PatchcoreModel, {}),
        "padim": (PadimModel, {"n_features": N_FEATURES}),
    }
    model_class, settings = peers[options.method]
    torch.manual_seed(options.seed)  # its draws come from the global generator
    model = model_class(
        layers=list(LAYERS[options.method]),
        backbone="tf_efficientnet_lite0",
        pre_trained=False,
        **settings,
    )
    model.feature_extractor = make_backbone(options.method)
    model.to(options.device)

    def fit() -> None:
        model.train()
        for batch in make_loader(train, 224):
            model(batch.images.to(options.device))
        if options.method == "patchcore":
            model.subsample_embedding(options.ratio)
        else:
            model.fit()
        model.eval()

    def predict() -> tuple[np.ndarray, np.ndarray]:
        out = [model(batch.images.to(options.device)) for batch in make_loader(test, 224)]
        scores, maps = (
            torch.cat([getattr(o, k) for o in out]).cpu().numpy()
            for k in ("pred_score", "anomaly_map")
        )
        return scores, maps[:, 0]

    _, fit_seconds = timed(fit, options.device)
    (scores, maps), predict_seconds = timed(predict, options.device)
    scores, bank = scores.ravel(), len(model.memory_bank)
    return measure(scores, maps, test, bank, fit_seconds, predict_seconds)


def measure(
    scores: np.ndarray, maps: np.ndarray, truth: Any, bank: int, fit: float, predict: float
) -> dict[str, Any]:
    """Make one row; the peak of memory is read before the metrics add to it."""
    from sklearn.metrics import average_precision_score, roc_auc_score

    row: dict[str, Any] = {
        "bank": bank,
        "fit_s": fit,
        "predict_ms": 1000 * predict / len(scores),
        "peak_mb": peak_memory_mb(),
    }
    if isinstance(truth, list):  # samples: read their masks as ours were read
        batches = list(make_loader(truth, maps.shape[1]))
        masks, labels = (
            torch.cat([getattr(b, k) for b in batches]).numpy() for k in ("masks", "labels")
        )
    else:
        masks, labels = truth.masks, truth.labels
    row |= {
        "image_auroc": roc_auc_score(labels, scores),
        "image_ap": average_precision_score(labels, scores),
    }
    row |= pixel_metrics(maps, masks) if masks.any() else dict.fromkeys(PIXEL_METRICS)
    return {name: None if row[name] is None else round(float(row[name]), 4) for name in SHOWN}


def run_detector(options: argparse.Namespace) -> pd.DataFrame:
    """Run both sides for every category and seed, each in its own process, and add the mean over
    several seeds.
    """
    sides = ["ours"] if options.skip_peer else ["ours", "anomalib"]
    seeds = options.seeds.split(",") if options.seeds else [str(options.seed)]
    rows: list[dict[str, Any]] = []
    for category in options.categories.split(","):
        for side in sides:
            for seed in seeds:
                command = [
                    sys.executable,
                    "-m",
                    "nbhelpers.runner.benchmark",
                    "side",
                    "--data-root",
                    str(options.data_root),
                    "--category",
                    category,
                    "--side",
                    side,
                    "--method",
                    options.what,
                    "--seed",
                    seed,
                    "--ratio",
                    str(options.ratio),
                    "--device",
                    options.device,
                ]
                result = subprocess.run(
                    command,
                    env={**os.environ, "PYTHONPATH": str(ROOT)},
                    capture_output=True,
                    text=True,
                    check=False,
                )
                if result.returncode:
                    last = (result.stderr.strip().splitlines() or ["no message"])[-1]
                    raise ModelError(
                        f"{side} on {category} stopped with exit code {result.returncode}: {last}"
                    )
                row = json.loads(result.stdout.strip().splitlines()[-1])
                rows.append({"category": category, "side": side, "seed": seed, **row})
                # at once, since the next side may take long
                print(json.dumps(rows[-1]), file=sys.stderr, flush=True)
            if len(seeds) > 1:
                mean = pd.DataFrame(rows[-len(seeds) :])[list(SHOWN)].mean().round(4).to_dict()
                rows.append({"category": category, "side": side, "seed": "mean", **mean})
    return pd.DataFrame(rows)


def main(arguments: list[str] | None = None) -> int:
    """Run the command line; returns the exit code."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "what",
        choices=("coreset", "patchcore", "padim", "side"),
        help="'side' is what the others call",
    )
    parser.add_argument("--data-root", type=Path, help="folder of categories in MVTec AD layout")
    parser.add_argument("--category", default="", help="coreset: whose features")
    parser.add_argument("--categories", default="", help="patchcore, padim: comma-separated")
    parser.add_argument("--n", type=int, default=133280, help="coreset: how many points")
    parser.add_argument(
        "--dim", type=int, default=152, help="coreset: length of a synthetic feature"
    )
    parser.add_argument("--ratio", type=float, default=0.05, help="share that is kept")
    parser.add_argument("--seed", type=int, default=42)
    parser.add_argument("--seeds", default="", help="patchcore, padim: several, comma-separated")
    parser.add_argument("--skip-peer", action="store_true", help="ours alone")
    parser.add_argument("--device", choices=("auto", "cpu", "cuda"), default="auto")
    parser.add_argument(
        "--method", choices=tuple(LAYERS), default="patchcore", help=argparse.SUPPRESS
    )
    parser.add_argument(
        "--side", choices=("ours", "anomalib"), default="ours", help=argparse.SUPPRESS
    )
    options = parser.parse_args(arguments)
    return exit_code(lambda: run(options))


def run(options: argparse.Namespace) -> int:
    """Run one comparison, print its table and write it; returns the exit code.

    Raises:
        StudyError: The images, the device or a side of the comparison fail.
    """
    options.device = pick_device(options.device)
    if options.what != "coreset" and options.data_root is None:
        raise DataError(
            f"{options.what}: expected --data-root, a folder in MVTec AD layout, found none"
        )
    if options.what == "side":
        samples = scan_category(options.data_root, options.category)
        train, test = ([s for s in samples if s.source == name] for name in ("train", "test"))
        side = run_ours if options.side == "ours" else run_peer
        print(json.dumps(side(train, test, options)))
        return 0
    table = run_coreset(options) if options.what == "coreset" else run_detector(options)
    print(table.to_string(index=False))
    facts = provenance(options.device, 0.0) | {"threads": torch.get_num_threads()}
    path = ROOT / "outputs" / "benchmark" / f"{options.what}.json"
    write_json(path, {"rows": table.to_dict("records"), "provenance": facts})
    return 0


if __name__ == "__main__":
    sys.exit(main())
