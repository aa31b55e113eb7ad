# ---
# jupyter:
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # 05 · What does a Gaussian per location see?
#
# **Question.** If at each place of the image the normal patches follow one Gaussian, which defects lie outside of it,
# and how much of the answer is the random choice of features?
#
# **Reads** one category's splits in the domain it is fitted on. **Writes** the fitted model and its predictions to
# `outputs/<profile>/`; evaluation reads those and never runs the network again.
#
# **Takes** seconds a category on the tiny set, about half a minute on 200 images of 224 px.
# **Before this:** 03. **After:** 07.
#
# Method: Defard et al., *PaDiM: a Patch Distribution Modeling Framework*, ICPR 2020 workshops; Gaussians and distance
# are anomalib's torch model, backbone and weights those of PatchCore.
#
# [![Open In Colab](https://colab.research.google.com/assets/colab-badge.svg)](https://colab.research.google.com/github/OWNER/anomaly-shift-study/blob/v0.1.0/notebooks/05_padim.ipynb)

# %% tags=["parameters"]
profile = "tiny"  # a file in configs/: tiny, folder (your own images) or mvtec
overrides = {}  # settings to change, e.g. {"padim.n_features": 150, "padim.seeds": [1, 2, 3, 4, 5]}
category = "hazelnut"  # one category of the data root
domain = "clean"  # what the detector is fitted on: clean or shift
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
import pandas as pd

from nbhelpers.analyses.cross_scores import cross_scores
from nbhelpers.analyses.refits import seeds, sweep
from nbhelpers.evaluation.bootstrap import score_summary
from nbhelpers.evaluation.metrics import image_metrics
from nbhelpers.evaluation.significance import delong_interval
from nbhelpers.evaluation.thresholds.calibrate import f1_optimal
from nbhelpers.figures.images import (
    one_of_each,
    plot_anomaly_maps,
    plot_locations,
    shared_limits,
    spread,
)
from nbhelpers.figures.scores import plot_f1_curve, plot_scores
from nbhelpers.figures.style import save_figure, use_style
from nbhelpers.study import open_study

NOTEBOOK, METHOD = "05_padim", "padim"
NAME = f"{category}_{domain}"
study = open_study(profile, overrides)
use_style()
study.describe()

# %% [markdown]
# ## Fit: a mean and a covariance at each place
#
# Features of all layers are brought to the finest grid; a seeded subset of the channels is kept, and at each place of
# the grid their mean and covariance over the training images are a Gaussian. Objects must stand alike for that: what
# is at a place in one image is compared with what is there in all others.

# %%
detector = study.detector(METHOD, category, fitted_on=domain)
train = study.split(category, domain)["train"]
print(f"{len(train)} training images, {detector.stats['n_locations']} Gaussians of {detector.n_features} features "
      f"out of {sum(detector.backbone.channels.values())}")

# %% tags=["nbval-ignore-output"]
study.describe_cost(METHOD, category, fitted_on=domain)

# %% [markdown]
# How much normal images vary at each place, beside three of them: bright is where almost anything passes for normal,
# so that a defect has to be large there to be seen.

# %%
fig = plot_locations(spread(train, 3), detector.spread())
_ = save_figure(fig, study.figure_path(NOTEBOOK, f"{NAME}_spread"))

# %% [markdown]
# ## Predict once
#
# Everything that any scenario will need of this detector, stored; for the clean one also the scores of a few refits,
# each without a part of the good images, that conformal thresholds are calibrated on.

# %%
stored = {f"{d} {split}": study.predictions(METHOD, category, fitted_on=domain, domain=d, split=split)
          for d, split in study.needed_predictions(domain)}
crossed = cross_scores(study, METHOD, category) if domain == "clean" else []
print({name: len(part) for name, part in stored.items()}, "and by refits:", len(crossed))

# %% [markdown]
# ## A threshold from validation

# %%
val = stored[f"{domain} val"]
threshold = f1_optimal(val.labels, val.image_scores)
print(f"F1 {threshold.calibration['f1']:.2f} on {threshold.n_good} good and {threshold.n_defect} defect images; "
      f"degenerate: {threshold.degenerate}")
fig = plot_f1_curve(val, threshold.value, METHOD)
_ = save_figure(fig, study.figure_path(NOTEBOOK, f"{NAME}_f1_curve"))

# %%
fig = plot_scores({f"validation, {domain}": val}, threshold.value)
_ = save_figure(fig, study.figure_path(NOTEBOOK, f"{NAME}_scores"))

# %%
print(pd.Series(score_summary(val.labels, val.image_scores)).round(1).to_string())

# %% [markdown]
# ## Where does it look?
#
# One colour scale for all maps; a title in red is a wrong decision.

# %%
limits = shared_limits(val)
defects = one_of_each(study.split(category, domain)["val"], 6)
fig = plot_anomaly_maps(defects, val, limits, threshold.value)
_ = save_figure(fig, study.figure_path(NOTEBOOK, f"{NAME}_defect_maps"))

# %%
good = spread([s for s in study.split(category, domain)["val"] if not s.label], 6)
fig = plot_anomaly_maps(good, val, limits, threshold.value)
_ = save_figure(fig, study.figure_path(NOTEBOOK, f"{NAME}_good_maps"))

# %% [markdown]
# ## How many features are worth keeping?
#
# Judged on clean validation, never on test.

# %%
sizes = sweep(study, METHOD, category, "clean", "padim.n_features", [25, 100, 150])
print(sizes[["padim.n_features", "image_auroc", "f1_max"]].round(2).to_string(index=False))

# %% [markdown]
# ## How much of it is luck?
#
# The subset of features is drawn at random. The same images, the same network, other seeds: published runs of PaDiM on
# one category differ by 0.09 in image AUROC for this reason alone. A difference between two methods that is smaller
# than this spread says nothing. (Clean train, clean test; ranking metrics, so that no threshold comes into it.)

# %%
refits = seeds(study, category).pivot(index="seed", columns="metric", values="value")
print(refits.agg(["mean", "min", "max"]).round(2).to_string())

# %% [markdown]
# ## What we found
#
# A Gaussian a place is cheap and sees what is out of place; which defects it misses, and whether that holds on test,
# is the next notebooks' matter.

# %%
values = image_metrics(val.labels, val.image_scores, threshold.value)
print(f"validation: ranks a defect above a good image in {values['image_auroc']:.0%} of pairs; "
      f"flags {values['recall']:.0%} of the defects and {1 - values['specificity']:.0%} of the good images")
print(f"{len(refits)} seeds differ by {refits.image_auroc.max() - refits.image_auroc.min():.2f} in image AUROC")
assert delong_interval(val.labels, val.image_scores)[1] > 0.5, "surely worse than chance: are the labels flipped?"
assert detector.feature_indices.unique().numel() == study.config.padim.n_features
