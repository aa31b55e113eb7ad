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
# **Question.** Which images train the detectors, which calibrate the threshold, which are tested, and do the three
# stay apart?
#
# **Reads** the data root. **Writes** `data/processed/<profile>/clean_splits.json` (paths relative to the data root)
# and figures of the splits.
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
from nbhelpers.notebook import open_notebook

note = open_notebook("02_data_preparation", profile, overrides)
study = note.study

# %% [markdown]
# ## The rule
#
# * **train**: a share of `train/good`; good images only;
# * **val**: the rest of `train/good` and a share of the defect images; it calibrates thresholds and nothing else;
# * **test**: all of `test/good` and the other defect images; it is looked at once, at the end.
#
# Shares are rounded down, as in the reference study.

# %%
rules = study.config.splits
print(f"train_ratio {rules.train_ratio}, val_anomaly_ratio {rules.val_anomaly_ratio}, "
      f"stratify {rules.stratify}, seed {study.config.seed}")

# %% [markdown]
# These settings are in `configs/`. The seed draws the images; the same seed draws the same ones on every machine.

# %%
from nbhelpers.data import splits
from nbhelpers.figures import data

drawn = study.splits
counts = splits.split_counts(drawn)
kinds = counts.assign(kind=counts.defect.map(lambda name: "good" if name == "good" else "anomalous"))
kinds = kinds.pivot_table(index="category", columns=["split", "kind"], values="images", aggfunc="sum")
note.show(kinds.reindex(columns=["train", "val", "test"], level=0).fillna(0).astype(int), "split_sizes")
note.write(counts, "split_counts")
note.save(data.plot_split_distribution(counts), "split_distribution")

# %% [markdown]
# There is no column of anomalous training images: a detector never sees a defect before it is judged. A threshold is
# chosen on the images of `val` alone. Where they are few, the threshold is uncertain, and the intervals of notebook
# 07 include that.
#
# ## Which defect types calibrate, and which are tested?
#
# Without `stratify: defect` the share is drawn from all defects of a category, whatever their type.

# %%
types = counts.pivot_table(index=["category", "defect"], columns="split", values="images", fill_value=0, sort=False)
note.show(types.reindex(columns=["train", "val", "test"]).astype(int), "defect_types")

# %% [markdown]
# A 0 under `val` is a type that the threshold was not calibrated on. That is realistic, for a new kind of defect is
# never in the calibration set; and it is one reason for thresholds that fail.
#
# ## Does anything leak?
#
# The following is checked for every category: no image, no file content and no object (where file names say which
# images show the same one) is in two splits; all files are there; and there are masks only where there is a defect.

# %%
verified = {name: study.verify(name, split) for name, split in drawn.items()}
groups = {name: len(set(splits.group_keys(study.samples(name), rules.groups.get(name)).values())) for name in drawn}
print("\n".join(f"{name}: no leak; {len(study.samples(name))} images of {groups[name]} objects" for name in verified))

# %% [markdown]
# A leak would have stopped the notebook with the names of the two files. Where there are fewer objects than images,
# several exposures of one object stay together in one split.
#
# ## Is it repeatable?
#
# Drawn a second time from the same seed, every split must be the stored one.

# %%
again = {name: splits.create_clean_split(study.samples(name), rules.train_ratio, rules.val_anomaly_ratio,
                                         study.config.seed, rules.stratify, rules.groups.get(name),
                                         study.pixels(name)) for name in drawn}
repeatable = {name: splits.to_ids(again[name]) == splits.to_ids(drawn[name]) for name in drawn}
print("\n".join(f"{name}: {'the same images as stored' if same else 'other images than stored'}"
                for name, same in repeatable.items()))

# %% [markdown]
# From here on every notebook reads the stored file. If images are added or change, it is refused, and a new split has
# to be drawn on purpose.
#
# ## What we found
#
# Computed from the splits, three for each category:

# %%
print("\n".join(f"{name}: learns from {found['train'][0]}, calibrates on {sum(found['val'])} and "
                f"is tested on {sum(found['test'])} images" for name, found in verified.items()))
assert all(repeatable.values()), "the split is not a function of its seed"
assert all(found["train"][1] == 0 for found in verified.values()), "a defect image would be learned as normal"

# %% [markdown]
# The study on real images was split by the same rule:

# %%
counted = ["train_good", "val_good", "val_defect", "test_good", "test_defect"]
note.beside("data", counted, by_category=True, this_run=False)

# %% [markdown]
# Compare the numbers of defects that calibrate: they say where a threshold is well founded, and where it rests on a
# few images.
