# ---
# jupyter:
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # 04 · What does a memory bank of normal patches see?
#
# **Question.** If an image is as anomalous as its strangest patch, and a patch as strange as it is far from every
# normal patch ever seen, which defects show?
#
# **Reads** one category's splits in the domain it is fitted on. **Writes** the fitted model and its predictions to
# `outputs/<profile>/`; evaluation reads those and never runs the network again.
#
# **Takes** seconds a category on the tiny set, about a minute on 200 images of 224 px; a GPU helps with ResNets.
# **Before this:** 03. **After:** 07.
#
# Method: Roth et al., *Towards Total Recall in Industrial Anomaly Detection*, CVPR 2022.
#
# [![Open In Colab](https://colab.research.google.com/assets/colab-badge.svg)](https://colab.research.google.com/github/OWNER/anomaly-shift-study/blob/v0.1.0/notebooks/04_patchcore.ipynb)

# %% tags=["parameters"]
profile = "tiny"  # a file in configs/: tiny, folder (your own images) or mvtec
overrides = {}  # settings to change, e.g. {"patchcore.coreset_ratio": 0.01}
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
from sklearn.decomposition import PCA

from nbhelpers.analyses.cross_scores import cross_scores
from nbhelpers.analyses.refits import sweep
from nbhelpers.evaluation.bootstrap import score_summary
from nbhelpers.evaluation.metrics import image_metrics
from nbhelpers.evaluation.significance import delong_interval
from nbhelpers.evaluation.thresholds.calibrate import f1_optimal
from nbhelpers.figures.images import (
    one_of_each,
    plot_anomaly_maps,
    plot_memory_bank,
    shared_limits,
    spread,
)
from nbhelpers.figures.scores import plot_f1_curve, plot_scores
from nbhelpers.figures.style import save_figure, use_style
from nbhelpers.models.patchcore.coreset import greedy_coreset
from nbhelpers.study import open_study

NOTEBOOK, METHOD = "04_patchcore", "patchcore"
NAME = f"{category}_{domain}"
study = open_study(profile, overrides)
use_style()
study.describe()

# %% [markdown]
# ## Fit: keep the patches that cover all others
#
# The backbone turns every training image into a grid of patch features; the greedy coreset keeps a small share of
# them so that the largest gap is as small as it can be made step by step. Exact, see `nbhelpers/models/coreset.py`.

# %%
detector = study.detector(METHOD, category, fitted_on=domain)
train = study.split(category, domain)["train"]
print(f"{len(train)} training images, memory bank {tuple(detector.memory_bank.shape)}: "
      f"{study.config.patchcore.coreset_ratio:.0%} of the patches")

# %% tags=["nbval-ignore-output"]
study.describe_cost(METHOD, category, fitted_on=domain)

# %% [markdown]
# The bank among the patches of a few training images, in two dimensions: it follows the whole cloud, edges included,
# instead of its dense middle.

# %%
features = detector.patch_features(spread(train, 6))
chosen = greedy_coreset(features, len(features) // 20, start=0)
points = PCA(2, random_state=study.config.seed).fit_transform(features.numpy())
fig = plot_memory_bank(points, chosen.numpy())
_ = save_figure(fig, study.figure_path(NOTEBOOK, f"{NAME}_memory_bank"))

# %% [markdown]
# ## Predict once
#
# Everything that any scenario will need of this detector, stored; for the clean one also the scores of a few refits,
# each without a part of the good images, that conformal thresholds are calibrated on. Test scores are not looked at in
# this notebook.

# %%
stored = {f"{d} {split}": study.predictions(METHOD, category, fitted_on=domain, domain=d, split=split)
          for d, split in study.needed_predictions(domain)}
crossed = cross_scores(study, METHOD, category) if domain == "clean" else []
print({name: len(part) for name, part in stored.items()}, "and by refits:", len(crossed))

# %% [markdown]
# ## A threshold from validation
#
# F1 changes only where a threshold passes a score, so every distinct threshold is tried; of the best plateau the
# middle is taken, not the edge. The dashed line is what will be deployed.

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
# ## How much of the training set is worth keeping?
#
# Chosen on clean validation, never on test, and not again for the shift.

# %%
ratios = sweep(study, METHOD, category, "clean", "patchcore.coreset_ratio", [0.01, 0.05, 0.10])
print(ratios[["patchcore.coreset_ratio", "bank_size", "image_auroc", "f1_max"]].round(2).to_string(index=False))

# %% [markdown]
# ## What we found
#
# A bank of a few percent of the patches separates most defects of the validation images; which ones it misses, and
# whether that holds on test, is the next notebooks' matter.

# %%
values = image_metrics(val.labels, val.image_scores, threshold.value)
print(f"validation: ranks a defect above a good image in {values['image_auroc']:.0%} of pairs; "
      f"flags {values['recall']:.0%} of the defects and {1 - values['specificity']:.0%} of the good images")
assert delong_interval(val.labels, val.image_scores)[1] > 0.5, "surely worse than chance: are the labels flipped?"
assert len(detector.memory_bank) == int(study.config.patchcore.coreset_ratio * detector.stats["n_patches"] + 1e-9)
