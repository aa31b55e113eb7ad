# ---
# jupyter:
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # 01 · What is in the data, and is it sound?
#
# **Question.** Which images are there, what do they look like, and can every one of them be used?
#
# **Reads** the data root (`profile` says which one; `tiny` draws its own). **Writes** counts, statistics and a plain
# text report to `outputs/<profile>/results/01_data_exploration/`, and figures to `outputs/<profile>/figures/`.
#
# **Takes** seconds on the tiny set, minutes for thousands of images; no GPU. **After this:** 02.
#
# [![Open In Colab](https://colab.research.google.com/assets/colab-badge.svg)](https://colab.research.google.com/github/OWNER/anomaly-shift-study/blob/v0.1.0/notebooks/01_data_exploration.ipynb)

# %% tags=["parameters"]
profile = "tiny"  # a file in configs/: tiny, folder (your own images) or mvtec
overrides = {}  # settings to change, e.g. {"data.root": "my_images", "data.image_size": 256}
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

note = open_notebook("01_data_exploration", profile, overrides)
study = note.study

# %% [markdown]
# The line names the categories, the side of the images as the network will see them, and the seed of every random
# choice. The next cell says where this ran; on another machine numbers may differ in the last digit.

# %% tags=["nbval-ignore-output"]
study.describe_machine()

# %% [markdown]
# The revision of the code and the versions of the packages are stored with every result, too.
#
# ## How many images of what?
#
# A category brings good images to learn from (`train/good`), and a test set of good images and of defects of several
# types.

# %%
from nbhelpers.data import exploration
from nbhelpers.figures import data, images

samples = [sample for name in study.categories for sample in study.samples(name)]
counts = exploration.count_table(samples)
note.write(counts, "dataset_counts")
note.show(counts.groupby(["category", "split"], sort=False).agg(
    types=("defect", "nunique"), images=("images", "sum"), masks=("masks", "sum")), "split_counts")
note.save(data.plot_counts(counts), "counts")

# %% [markdown]
# The table counts the images of each split, and the figure those of each type. A type with few images will have wide
# intervals in every later notebook: with 3 images, a recall of 100 % is compatible with a true one of 30 %. If there
# are fewer masks than defect images, pixel metrics will have to leave some out.
#
# ## What do good images look like?
#
# Whatever varies among the good images is what a detector must learn to ignore: pose, light, texture.

# %%
good = {name: images.spread([s for s in study.samples(name) if not s.label], 8) for name in study.categories}
note.save(images.plot_samples(good), "good_examples")

# %% [markdown]
# Go through one row and ask what changes from image to image. If the object turns, a method that learns what is
# normal at each *place* (PaDiM, notebook 05) has a harder task than one that learns what is normal *anywhere*
# (PatchCore, 04).
#
# ## And the defects?
#
# The outline is the ground-truth mask.

# %%
bad = {name: images.one_of_each(study.samples(name), 8) for name in study.categories}
note.save(images.plot_samples(bad), "defect_examples")

# %% [markdown]
# Look for defects that you would have missed without the outline, and for outlines that are much larger than their
# defect: both set a limit to what any detector can reach.
#
# ## Sizes, colour modes, intensities
#
# Every file is read in full here, so that a truncated image stops the notebook and is named.

# %%
statistics = exploration.describe_images(samples)
note.write(statistics, "image_statistics")
note.show(statistics.groupby("category", sort=False).agg(
    images=("image", "size"), width_min=("width", "min"), width_max=("width", "max"),
    height_min=("height", "min"), height_max=("height", "max"), mode=("mode", "first"), modes=("mode", "nunique"),
    mean_grey=("mean", "mean"), std_between=("mean", "std"),
), "category_statistics", digits=1)
note.save(data.plot_image_statistics(statistics), "image_statistics")

# %% [markdown]
# Images of different sizes are brought to one square, so an aspect ratio that varies means that objects are stretched
# differently. `mean_grey` is the brightness from 0 to 255; `std_between` says how much it varies between images of
# one category. If the boxes of good and of defect images do not overlap in the figure, brightness alone tells them
# apart, and a high score of a detector would not mean much.
#
# ## How large are the defects?
#
# In percent of the image. A defect of a fraction of a percent covers a handful of cells of a detector's feature grid.

# %%
defects = exploration.describe_defects(samples)
note.write(defects, "defect_areas")
note.show(exploration.area_table(defects), "defect_area_quantiles")
note.save(data.plot_defect_areas(defects), "defect_areas")

# %% [markdown]
# The scale of the figure is logarithmic. Compare the smallest defects with one cell of the grid, which notebook 04
# shows: at 160 px with 20 x 20 cells a cell is 0.25 % of the image.
#
# ## Is anything there twice?
#
# The same bytes under two names would leak from training into test.

# %%
duplicates = {name: exploration.find_duplicates({s.id: study.contents(name)[s.id] for s in study.samples(name)})
              for name in study.categories}
print("\n".join(f"{name}: {len(groups)} groups of identical files" for name, groups in duplicates.items()))

# %% [markdown]
# Zero is what one hopes for. Where there are some, notebook 02 refuses a split that has them on both sides.
#
# ## What we found
#
# Computed from the files:

# %%
facts = exploration.metadata(samples)
note.write(facts, "dataset_metadata")
note.write(exploration.report(samples, statistics, defects), "data_analysis_report")
print("\n".join(f"{name}: {f['train_good']} good images to learn from, {f['test_good']} good ones and "
                f"{f['test_defect']} defects of {len(f['defect_types'])} types to test on, {f['masks']} masks"
                for name, f in facts.items()))
assert len(statistics) == len(samples), "an image was not read"
assert all(f["test_good"] and f["test_defect"] for f in facts.values()), "a category cannot be evaluated"

# %% [markdown]
# The study on real images, whose results are shown at the end of every notebook, has these numbers of images after
# they were split (notebook 02 explains the three splits):

# %%
counted = ["train_good", "val_good", "val_defect", "test_good", "test_defect"]
note.beside("data", counted, by_category=True, this_run=False)

# %% [markdown]
# Four times as many images halve an interval. The tiny set is there to run everything in minutes; believe what the
# real images show.
