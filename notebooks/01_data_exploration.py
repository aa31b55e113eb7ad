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
# **Reads** the data root (`profile` says which; `tiny` draws its own). **Writes** counts, statistics and a plain
# text report to `outputs/<profile>/results/01_data_exploration/`, figures to `outputs/<profile>/figures/`.
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
from nbhelpers.data.exploration import (
    area_table,
    count_table,
    describe_defects,
    describe_images,
    find_duplicates,
    metadata,
    report,
)
from nbhelpers.figures.data import plot_counts, plot_defect_areas, plot_image_statistics
from nbhelpers.figures.images import one_of_each, plot_samples, spread
from nbhelpers.figures.style import save_figure, use_style
from nbhelpers.files import write_csv, write_json, write_text
from nbhelpers.study import open_study

NOTEBOOK = "01_data_exploration"
study = open_study(profile, overrides)
use_style()
study.describe()

# %% [markdown]
# Where this ran; numbers may differ in the last digit on another machine.

# %% tags=["nbval-ignore-output"]
study.describe_machine()

# %% [markdown]
# ## How many images of what?
#
# A category brings good images to learn from (`train/good`) and a test set of good ones and defects of several
# types. Few images of a type mean wide intervals later.

# %%
samples = [sample for category in study.categories for sample in study.samples(category)]
counts = count_table(samples)
print(counts.to_string(index=False))

# %%
fig = plot_counts(counts)
_ = save_figure(fig, study.figure_path(NOTEBOOK, "counts"))

# %% [markdown]
# ## What do good ones look like?
#
# Whatever varies among the good images is what a detector must learn to ignore: pose, light, texture.

# %%
good = {name: spread([s for s in study.samples(name) if not s.label], 8) for name in study.categories}
fig = plot_samples(good)
_ = save_figure(fig, study.figure_path(NOTEBOOK, "good_examples"))

# %% [markdown]
# ## And the defects?
#
# The outline is the ground-truth mask. Look for defects that you would have missed without it.

# %%
bad = {name: one_of_each(study.samples(name), 8) for name in study.categories}
fig = plot_samples(bad)
_ = save_figure(fig, study.figure_path(NOTEBOOK, "defect_examples"))

# %% [markdown]
# ## Sizes, colour modes, intensities
#
# Every file is read in full here: a truncated image stops the notebook and is named.

# %%
images = describe_images(samples)
summary = images.groupby("category").agg(
    images=("image", "size"), width_min=("width", "min"), width_max=("width", "max"),
    height_min=("height", "min"), height_max=("height", "max"), modes=("mode", lambda m: "/".join(sorted(set(m)))),
    mean_grey=("mean", "mean"), std_between=("mean", "std"),
)
print(summary.round(1).to_string())

# %%
fig = plot_image_statistics(images)
_ = save_figure(fig, study.figure_path(NOTEBOOK, "image_statistics"))

# %% [markdown]
# ## How large are the defects?
#
# A defect of a fraction of a percent covers a handful of cells of a detector's feature grid.

# %%
defects = describe_defects(samples)
areas = area_table(defects)
print(areas.round(2).to_string(index=False))

# %%
fig = plot_defect_areas(defects)
_ = save_figure(fig, study.figure_path(NOTEBOOK, "defect_areas"))

# %% [markdown]
# ## Is anything there twice?
#
# The same bytes under two names would leak from training into test.

# %%
duplicates = {name: find_duplicates({s.id: study.contents(name)[s.id] for s in study.samples(name)})
              for name in study.categories}
print({name: len(groups) for name, groups in duplicates.items()}, "groups of identical files")

# %% [markdown]
# ## Written for later

# %%
folder = study.config.output_dir / "results" / NOTEBOOK
write_csv(folder / "dataset_counts.csv", counts)
write_csv(folder / "image_statistics.csv", images)
write_csv(folder / "defect_areas.csv", defects)
write_csv(folder / "defect_area_quantiles.csv", areas)
write_json(folder / "dataset_metadata.json", metadata(samples))
write_text(folder / "data_analysis_report.txt", report(samples, images, defects))

# %% [markdown]
# ## What we found
#
# The table below is the short of it; the checks stop the study if the data are not what it assumes.

# %%
facts = metadata(samples)
print("\n".join(f"{name}: {f['train_good']} good to learn from, {f['test_good']} good and {f['test_defect']} "
                f"defects of {len(f['defect_types'])} types to test on, {f['masks']} masks"
                for name, f in facts.items()))
assert len(images) == len(samples), "an image was not read"
assert all(f["test_good"] and f["test_defect"] for f in facts.values()), "a category cannot be evaluated"
