# ---
# jupyter:
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # 11 · Can one model serve all categories?
#
# **Question.** One PatchCore and one PaDiM are fitted on the clean training images of all categories together. What
# does that cost, does one threshold do for all, and do defects of one category pass for another's normal patches?
#
# **Reads** stored predictions (fits what is missing). **Writes** `global_results.json`,
# `global_one_threshold_results.json`, their rows of `metrics.csv` and the transfer table to
# `outputs/<profile>/results/`.
#
# **Takes** seconds on stored predictions, one more fit a method without; a GPU helps with ResNets.
# **Before this:** 07. **After:** 12.
#
# [![Open In Colab](https://colab.research.google.com/assets/colab-badge.svg)](https://colab.research.google.com/github/OWNER/anomaly-shift-study/blob/v0.1.0/notebooks/11_global_model.ipynb)

# %% tags=["parameters"]
profile = "tiny"  # a file in configs/: tiny, folder (your own images) or mvtec
overrides = {}  # settings to change, e.g. {"patchcore.coreset_ratio": 0.1}
method = "patchcore"  # whose pictures are shown; the tables hold all methods
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
from nbhelpers.analyses.all import run_scenario, write_metrics
from nbhelpers.analyses.differences import difference
from nbhelpers.analyses.global_model import (
    category_transfer,
    nearest_categories,
    shortcut,
    worst_matches,
)
from nbhelpers.analyses.scenarios import evaluate_cell, tested
from nbhelpers.figures.comparisons import plot_threshold_transfer
from nbhelpers.figures.images import plot_matches
from nbhelpers.figures.scores import plot_metric_bars, plot_pooled_scores
from nbhelpers.figures.style import save_figure, use_style
from nbhelpers.files import write_csv
from nbhelpers.results.numbers import Results
from nbhelpers.results.views import qualified, with_intervals
from nbhelpers.study import open_study

NOTEBOOK, SCENARIO, ONE = "11_global_model", "global", "global_one_threshold"
study = open_study(profile, overrides)
method = method if method in study.config.methods else study.config.methods[0]
use_style()
study.describe()

# %% [markdown]
# ## One model, a threshold for each category
#
# Fitted on clean train of all categories, thresholds from each category's clean val, tested on its clean test.

# %%
own, pooled = run_scenario(study, "clean"), run_scenario(study, SCENARIO)
print(with_intervals(pooled, ["image_auroc", "f1", "specificity", "aupro"]).to_string())

# %% [markdown]
# What pooling costs against a model of one's own, pair by pair on the same test images.

# %%
cost = difference(study, "clean", SCENARIO)
write_csv(study.config.output_dir / "results" / NOTEBOOK / "cost_of_pooling.csv", cost)
print(with_intervals(cost, ["image_auroc", "f1", "specificity", "aupro"]).to_string())

# %%
metrics = [name for name in ("image_auroc", "f1", "aupro") if name in set(pooled.metric)]
fig = plot_metric_bars(pooled, metrics)
_ = save_figure(fig, study.figure_path(NOTEBOOK, "metrics"))

# %% [markdown]
# ## One threshold for all categories
#
# The class-agnostic operating point: a line that does not know what lies in front of it. Scores of good images differ
# from category to category, so one threshold is too low for some and too high for others.

# %%
single = run_scenario(study, ONE)
print(with_intervals(single, ["f1", "recall", "specificity", "balanced_accuracy"]).to_string())

# %%
price = difference(study, SCENARIO, ONE)
print(with_intervals(price, ["f1", "recall", "specificity", "balanced_accuracy"]).to_string())

# %%
tests = {name: tested(study, SCENARIO, method, name) for name in study.categories}
each = {name: evaluate_cell(study, SCENARIO, method, name)["threshold"]["value"] for name in study.categories}
shared = evaluate_cell(study, ONE, method, study.categories[0])["threshold"]["value"]
fig = plot_pooled_scores(tests, each, shared)
_ = save_figure(fig, study.figure_path(NOTEBOOK, f"{method}_pooled_scores"))

# %% [markdown]
# The matrix behind it: a category's threshold (rows) on every category's images (columns).

# %%
transfer = category_transfer(study)
write_csv(study.config.output_dir / "results" / NOTEBOOK / "threshold_transfer.csv", transfer)
fig = plot_threshold_transfer(Results(transfer), SCENARIO)
_ = save_figure(fig, study.figure_path(NOTEBOOK, "threshold_transfer"))

# %% [markdown]
# ## The identical shortcut
#
# A model of all categories could find a defect normal because another category's normal patches look like it. Evidence
# comes from test images: of which category is the nearest patch of the memory bank? (The model's own training images
# would match themselves.) PaDiM keeps no patches, so the question is PatchCore's.

# %%
evidence = shortcut(study)
print(evidence[evidence.metric == "bank_share"].pivot(index="method", columns="category", values="value")
      .round(2).to_string())

# %%
shares = qualified(evidence, "patches", ["other_category_share"], interval=True)
print(shares.pivot(index=["method", "category"], columns="patches", values="other_category_share")
      .fillna("-").to_string() if len(shares) else "no masks or no memory bank, so no share")

# %% [markdown]
# The worst: test images whose defect patches match other categories most. Coloured cells are patches whose nearest
# bank patch is another category's, the outline is the defect.

# %%
worst = worst_matches(study, method, 8)
matches = {name: nearest_categories(study, method, name)[1] for name in study.categories}
samples = {name: {s.id: s for s in study.split(name)["test"]} for name in study.categories}
shown = [(samples[name][tests[name].ids[place]], matches[name][place], share) for name, place, share in worst]
fig = plot_matches(shown, study.categories)
_ = save_figure(fig, study.figure_path(NOTEBOOK, f"{method}_worst_matches"))

# %% [markdown]
# ## What we found
#
# The ranking shows what pooling costs, the single threshold what deploying it costs.

# %%
write_metrics(study)
for table, what, metric in ((cost, "pooling", "image_auroc"), (price, "one threshold for all", "balanced_accuracy")):
    rows = table[table.macro & (table.metric == metric)]
    print("\n".join(f"{what}: {r.method} {r.value:+.2f} [{r.ci_low:+.2f}, {r.ci_high:+.2f}] {metric} on average"
                    for r in rows.itertuples()))
bank = evidence[evidence.metric == "bank_share"]
assert (bank.groupby("method").value.sum() - 1).abs().max() < 1e-9 or bank.empty, "the bank's shares do not add up"
assert (price[price.metric == "image_auroc"].value == 0).all(), "the ranking changed without a new model"
