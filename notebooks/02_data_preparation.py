# ---
# jupyter:
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # 02 · Which image is in which split, and why is nothing leaked?
#
# **Question.** What is learnt from, what calibrates the threshold, what is tested, and do the three stay apart?
#
# **Reads** the data root. **Writes** `data/processed/<profile>/clean_splits.json` (paths relative to the data root),
# split figures.
#
# **Takes** seconds; no GPU. **Before this:** 01. **After:** 03.
#
# [![Open In Colab](https://colab.research.google.com/assets/colab-badge.svg)](https://colab.research.google.com/github/OWNER/anomaly-shift-study/blob/v0.1.0/notebooks/02_data_preparation.ipynb)

# %% tags=["parameters"]
profile = "tiny"  # a file in configs/: tiny, folder (your own images) or mvtec
overrides = {}  # settings to change, e.g. {"splits.stratify": "defect", "seed": 7}
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
from nbhelpers.data.splits import create_clean_split, group_keys, split_counts, to_ids
from nbhelpers.figures.data import plot_split_distribution
from nbhelpers.figures.style import save_figure, use_style
from nbhelpers.files import write_csv
from nbhelpers.study import open_study

NOTEBOOK = "02_data_preparation"
study = open_study(profile, overrides)
use_style()
study.describe()

# %% [markdown]
# ## The rule
#
# * **train**: a share of `train/good`, good images only;
# * **val**: the rest of `train/good`, and a share of the defect images: it calibrates thresholds, nothing else;
# * **test**: all of `test/good` and the other defect images: looked at once, at the end.
#
# Shares are floored, as in the reference study.

# %%
rules = study.config.splits
print(f"train_ratio {rules.train_ratio}, val_anomaly_ratio {rules.val_anomaly_ratio}, "
      f"stratify {rules.stratify}, seed {study.config.seed}")

# %%
splits = study.splits
counts = split_counts(splits)
table = counts.assign(kind=counts.defect.map(lambda name: "good" if name == "good" else "anomalous"))
table = table.pivot_table(index="category", columns=["split", "kind"], values="images", aggfunc="sum")
print(table.reindex(columns=["train", "val", "test"], level=0).fillna(0).astype(int).to_string())

# %%
fig = plot_split_distribution(counts)
_ = save_figure(fig, study.figure_path(NOTEBOOK, "split_distribution"))

# %% [markdown]
# ## Which defect types calibrate, which are tested?
#
# Without `stratify: defect` a rare type may stand on one side only.

# %%
print(counts.pivot_table(index=["category", "defect"], columns="split", values="images", fill_value=0)
      .reindex(columns=["train", "val", "test"]).astype(int).to_string())

# %% [markdown]
# ## Does anything leak?
#
# Checked for every category: no image, no file content and no object (where file names tell objects apart) in two
# splits; all files there; masks only where there is a defect.

# %%
verified = {name: study.verify(name, split) for name, split in splits.items()}
print("\n".join(f"{name}: OK, (good, anomalous) {found}" for name, found in verified.items()))

# %%
groups = {name: len(set(group_keys(study.samples(name), rules.groups.get(name)).values())) for name in splits}
print("\n".join(f"{name}: {len(study.samples(name))} images of {n} objects" for name, n in groups.items()))

# %% [markdown]
# ## Is it repeatable?
#
# Drawn a second time from the same seed, every split must be the stored one.

# %%
again = {name: create_clean_split(study.samples(name), rules.train_ratio, rules.val_anomaly_ratio,
                                  study.config.seed, rules.stratify, rules.groups.get(name),
                                  study.pixels(name)) for name in splits}
repeatable = {name: to_ids(again[name]) == to_ids(splits[name]) for name in splits}
print(repeatable)

# %%
write_csv(study.config.output_dir / "results" / NOTEBOOK / "split_counts.csv", counts)

# %% [markdown]
# ## What we found
#
# Three disjoint splits a category, written once and read from now on by everything else.

# %%
print("\n".join(f"{name}: learns from {found['train'][0]}, calibrates on {sum(found['val'])}, "
                f"is tested on {sum(found['test'])} images" for name, found in verified.items()))
assert all(repeatable.values()), "the split is not a function of its seed"
assert all(found["train"][1] == 0 for found in verified.values()), "a defect image would be learnt as normal"
