# ---
# jupyter:
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # 06 · What can reconstruction see?
#
# **Question.** A network that has learned to reconstruct good images cannot reconstruct a defect, or so the idea goes.
# How far does it hold for this architecture, and how much depends on how image and reconstruction are compared?
#
# **Reads** each category's splits. **Writes** the trained networks, their predictions, and rows of scenario
# `reconstruction`, to `outputs/<profile>/`.
#
# **Takes** seconds a category on the tiny set, minutes at 128 px on a CPU (preset `cpu`); full size wants a GPU.
# **Before this:** 03. **After:** 07. Run once for each architecture.
#
# Plain autoencoders are the weak end of the field: with a pixel residual the published one reaches a pixel AUROC of
# 0.59 on carpet (Bergmann et al., 2019). What lifts them is to compare in the space of pretrained features.
#
# [![Open In Colab](https://colab.research.google.com/assets/colab-badge.svg)](https://colab.research.google.com/github/OWNER/anomaly-shift-study/blob/v0.1.0/notebooks/06_autoencoder.ipynb)

# %% tags=["parameters"]
profile = "tiny"  # a file in configs/: tiny, folder (your own images) or mvtec
overrides = {}  # settings to change, e.g. {"preset": "cpu"} or {"autoencoder.training.epochs": 200}
architecture = "vit"  # cnn, resnet, vit, unet_lite, unet, reversed or diffusion
drive_folder = ""  # Colab: a folder of your Google Drive to keep data and outputs in

# %% tags=["bootstrap"]
import os
import subprocess
import sys
from pathlib import Path

REPO_URL = os.environ.get("STUDY_REPO_URL", "https://github.com/OWNER/anomaly-shift-study")
REPO_REF = "v0.1.0"  # a tag, so that this notebook and the helpers it needs stay together
here = Path.cwd()
places = (here, *here.parents, Path(sys.prefix).parent, here / "anomaly-shift-study")
ROOT = next((p for p in places if (p / "nbhelpers" / "__init__.py").is_file()), None)
if ROOT is None:  # opened alone, as in Colab
    ROOT = here / "anomaly-shift-study"
    subprocess.run(["git", "clone", "-q", "--depth", "1", "-b", REPO_REF, REPO_URL, str(ROOT)], check=True)
    needs = str(ROOT / "requirements-colab.txt")
    subprocess.run([sys.executable, "-m", "pip", "install", "-q", "-r", needs], check=True)
if drive_folder:  # Colab only: data and outputs outlive the machine
    from google.colab import drive

    drive.mount("/content/drive")
    os.environ["STUDY_WORKSPACE"] = f"/content/drive/MyDrive/{drive_folder}"
sys.path.insert(0, str(ROOT))
os.chdir(ROOT)

# %%
from nbhelpers.analyses.all import write_metrics
from nbhelpers.analyses.cross_scores import cross_scores
from nbhelpers.analyses.reconstruction import HEADS, costs, heads_table, quality_table
from nbhelpers.evaluation.pixel_masks import pixel_threshold
from nbhelpers.evaluation.thresholds.calibrate import f1_optimal
from nbhelpers.figures.images import one_of_each, shared_limits, spread
from nbhelpers.figures.reconstructions import (
    plot_attention,
    plot_head_scores,
    plot_heads,
    plot_history,
    plot_reconstructions,
    plot_triplets,
)
from nbhelpers.figures.style import save_figure, use_style
from nbhelpers.models.autoencoders.detector import to_pixels
from nbhelpers.results.numbers import label
from nbhelpers.study import open_study

NOTEBOOK, METHOD = "06_autoencoder", f"ae_{architecture}"
study = open_study(profile, overrides)
use_style()
study.describe()

# %% [markdown]
# ## Train on good images only
#
# A share of the training images is held out: their loss decides when training stops and which weights are kept. Neither
# validation, which will calibrate thresholds, nor test is looked at. A run that was killed goes on at its last epoch.

# %% tags=["trained"]
detectors = {}
for category in study.categories:
    detectors[category] = study.detector(METHOD, category)
    stats = detectors[category].stats
    print(f"{category}: trained on {stats['n_images']} images, {stats['n_held_out']} more held out; "
          f"{stats['n_parameters']:,} parameters, {stats['epochs']} epochs, the best was {stats['best_epoch']}")

# %%
category = study.categories[0]
detector = detectors[category]
fig = plot_history(detector.history)
_ = save_figure(fig, study.figure_path(NOTEBOOK, f"{architecture}_history"))

# %% [markdown]
# ## Predict once
#
# The configured head scores; where this autoencoder is one of the study's methods, all that the scenarios need of it is
# stored now.

# %%
for name in study.categories:
    stored = {split: study.predictions(METHOD, name, fitted_on="clean", domain="clean", split=split)
              for split in ("val", "test")}
    if METHOD in study.config.methods:
        needed = [study.predictions(METHOD, name, fitted_on="clean", domain=domain, split=split)
                  for domain, split in study.needed_predictions("clean")]
        crossed = cross_scores(study, METHOD, name)
print(f"{label(METHOD)} scores by the residual: {label(detector.choice.head)}")

# %% [markdown]
# ## What does it reconstruct?
#
# Image, reconstruction, anomaly map, on one colour scale for all. A defect that comes back unharmed is one that a
# pixel residual cannot see.

# %%
val = study.split(category)["val"]
chosen = [*one_of_each(val, 4), *spread([s for s in val if not s.label], 2)]
images, found = map(to_pixels, detector.reconstruct(chosen))
said = study.predictions(METHOD, category, fitted_on="clean", domain="clean", split="val")
fig = plot_reconstructions(chosen, images, found, said, shared_limits(said))
_ = save_figure(fig, study.figure_path(NOTEBOOK, f"{architecture}_reconstructions"))

# %% [markdown]
# Reconstructions of good images and of defects apart, pixels in [-1, 1]. If both are equally good, the network copies.

# %% tags=["trained"]
print(quality_table(study, architecture).round(2).to_string())

# %% [markdown]
# ## One network, several heads
#
# The same reconstructions, compared pixel by pixel, by local structure (SSIM), and by what a pretrained network sees in
# both. Each row has its own scale: the units differ.

# %%
by_head = detector.predict_heads(val, HEADS)
fig = plot_heads(chosen, by_head)
_ = save_figure(fig, study.figure_path(NOTEBOOK, f"{architecture}_heads"))

# %% [markdown]
# On clean test, beside the methods that need no training of their own. This judges; nothing is chosen by it.

# %%
scores = heads_table(study, architecture)
print(scores.round(2).to_string(index=False))
fig = plot_head_scores(scores)
_ = save_figure(fig, study.figure_path(NOTEBOOK, f"{architecture}_head_scores"))

# %% [markdown]
# ## From map to mask
#
# A pixel is marked where it exceeds a high percentile of good validation pixels, one threshold for all images; what is
# smaller than a few pixels is dropped. Scaled image by image, every good image would show a defect.

# %%
scoring = study.config.autoencoder.scoring
limit = pixel_threshold(said.anomaly_maps[said.labels == 0], scoring.pixel_percentile)
fig = plot_triplets(chosen, said, limit, shared_limits(said), scoring.min_area)
_ = save_figure(fig, study.figure_path(NOTEBOOK, f"{architecture}_masks"))

# %% [markdown]
# ## What does attention look at?
#
# Only a vision transformer has an answer: how much of the last block's attention each patch receives, and where one
# patch looks.

# %%
if architecture == "vit":
    fig = plot_attention(chosen, images, detector.attention(chosen))
    _ = save_figure(fig, study.figure_path(NOTEBOOK, f"{architecture}_attention"))

# %% [markdown]
# ## What does it cost?
#
# All architectures that are trained so far with these settings; a forward pass is the reconstruction of one image, on
# the configured device and threads.

# %% tags=["nbval-ignore-output"]
print(costs(study).round(2).to_string(index=False))

# %% [markdown]
# ## What we found
#
# A network is only as good a detector as the comparison that follows it.

# %%
by_head = scores[scores.method == METHOD].groupby("head").image_auroc.mean()
print(f"{label(METHOD)}, image AUROC on average:", ", ".join(f"{label(h)} {v:.2f}" for h, v in by_head.items()))
threshold = f1_optimal(said.labels, said.image_scores)
print(f"{label(METHOD)}, {category}: F1 {threshold.calibration['f1']:.2f} on validation")
table = write_metrics(study)
assert METHOD in set(table[table.scenario == "reconstruction"].method)
for found_history in (d.history for d in detectors.values()):
    losses = [row["held_out_loss"] for row in found_history]
    assert min(losses) < losses[0], "training did not lower the loss on held-out normals"
