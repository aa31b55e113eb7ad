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
# **Question.** One detector of each kind is fitted on the clean training images of all categories together. What does
# that cost, does one threshold do for all, and do defects of one category pass for another's normal patches?
#
# **Reads** stored predictions (fits what is missing). **Writes** `global_results.json`,
# `global_one_threshold_results.json`, their rows of `metrics.csv` and the transfer table to
# `outputs/<profile>/results/`.
#
# **Takes** seconds on stored predictions, one more fit per method without them; a GPU helps with ResNets. **Before
# this:** 07. **After:** 12.
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
from nbhelpers.notebook import open_notebook

note = open_notebook("11_global_model", profile, overrides)
study, method = note.study, note.chosen(method)

# %% [markdown]
# ## One model, a threshold for each category
#
# Fitted on clean train of all categories, thresholds from each category's clean val, tested on its clean test.

# %%
from nbhelpers.analyses.all import run_scenario
from nbhelpers.results import views

pooled = run_scenario(study, "global")
note.show(views.with_intervals(pooled, ["image_auroc", "f1", "specificity", "aupro"]), "metrics")

# %% [markdown]
# Compare it with the first table of notebook 07, where each category has a model of its own. The difference, pair by
# pair on the same test images:

# %%
from nbhelpers.analyses.differences import difference

run_scenario(study, "clean")
cost = difference(study, "clean", "global")
note.write(cost, "cost_of_pooling")
note.show(views.with_intervals(cost, ["image_auroc", "f1", "specificity", "aupro"]), "cost_of_pooling_wide")

# %% [markdown]
# One model for all minus a model of one's own; negative is the cost. Where every interval of a column contains 0,
# pooling costs nothing that these images can show.

# %%
from nbhelpers.figures import comparisons, images, scores

there = [name for name in ("image_auroc", "f1", "aupro") if name in set(pooled.metric)]
note.save(scores.plot_metric_bars(pooled, there), "metrics")

# %% [markdown]
# A method whose bars fall off in one category only has trouble to tell that category's normal patches from those of
# the others.
#
# ## One threshold for all categories
#
# The class-agnostic operating point: a line that does not know what lies in front of it.

# %%
single = run_scenario(study, "global_one_threshold")
note.show(views.with_intervals(single, ["f1", "recall", "specificity", "balanced_accuracy"]), "one_threshold")

# %% [markdown]
# Compare the rows of one method: a line that has to serve all categories serves some badly. The difference to a
# threshold for each category:

# %%
price = difference(study, "global", "global_one_threshold")
note.show(views.with_intervals(price, ["f1", "recall", "specificity", "balanced_accuracy"]), "price_of_one_threshold")

# %% [markdown]
# One threshold is too low for some categories and too high for others, so look for a row that loses recall beside one
# that loses specificity. The next figure shows why:

# %%
tested, own_thresholds = note.tested("global")[method], note.thresholds("global")[method]
shared = note.thresholds("global_one_threshold")[method][study.categories[0]]
note.save(scores.plot_pooled_scores(tested, own_thresholds, shared), f"{method}_pooled_scores")

# %% [markdown]
# Each tick is an image. Good images of different categories have different scores: a texture that varies is farther
# from the bank than a plain surface. The matrix behind it applies each category's threshold (rows) to every
# category's images (columns).

# %%
from nbhelpers.analyses import global_model
from nbhelpers.results.numbers import Results

transfer = global_model.category_transfer(study)
note.write(transfer, "threshold_transfer")
note.save(comparisons.plot_threshold_transfer(Results(transfer), "global"), "threshold_transfer")

# %% [markdown]
# Off the diagonal, a threshold from elsewhere: false alarms in one half of the figure, misses in the other.
#
# ## The identical shortcut
#
# A model of all categories could find a defect normal because another category's normal patches look like it.
# Evidence comes from test images: of which category is the nearest patch of the memory bank? (The model's own
# training images would match themselves.) Only PatchCore keeps patches, so this question is asked of PatchCore alone.

# %%
evidence = global_model.shortcut(study)
bank = evidence[evidence.metric == "bank_share"]
note.show(bank[["method", "category", "value"]].rename(columns={"value": "share of the bank"}), "bank_shares",
          empty="no memory bank")

# %% [markdown]
# A category that varies more takes a larger share of the bank. Of the test patches, how many find their nearest
# neighbour in another category's share?

# %%
matches = views.qualified(evidence, "patches", ["other_category_share"], interval=True)
note.show(matches.pivot(index=["method", "category"], columns="patches", values="other_category_share").fillna("-")
          if len(matches) else matches, "shortcut", empty="no masks or no memory bank, so no share")

# %% [markdown]
# If defect patches match elsewhere much more often than normal ones do, the shortcut is there. The worst cases:

# %%
worst = global_model.worst_matches(study, method, 8)
owners = {name: global_model.nearest_categories(study, method, name)[1] for name in study.categories}
samples = {name: {s.id: s for s in study.split(name)["test"]} for name in study.categories}
drawn = [(samples[name][tested[name].ids[place]], owners[name][place], share) for name, place, share in worst]
note.save(images.plot_matches(drawn, study.categories), f"{method}_worst_matches")

# %% [markdown]
# Coloured cells are patches whose nearest bank patch is another category's; the outline is the defect. Colour inside
# of an outline is a defect that passes for a normal part of something else.
#
# ## What we found
#
# Computed from `metrics.csv` of this run and of the study on real images. First what one model for all costs, then
# what one threshold for all costs on top:

# %%
from nbhelpers.report import sentences

note.tell(sentences.change, "clean", "global", "image_auroc")
note.tell(sentences.change, "global", "global_one_threshold", "balanced_accuracy")
note.tell(sentences.shortcut)

# %% [markdown]
# The differences of the first list beside each other, with those of localisation and specificity:

# %%
note.beside("global", ["image_auroc", "aupro", "specificity"], against="clean")
assert (bank.groupby("method").value.sum() - 1).abs().max() < 1e-9 or bank.empty, "the bank's shares do not add up"
assert (price[price.metric == "image_auroc"].value == 0).all(), "the ranking changed without a new model"

# %% [markdown]
# The ranking shows what pooling costs, the single threshold what it costs to deploy it.
