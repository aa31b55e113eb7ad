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
# **Question.** Suppose that the normal patches at each place of the image follow one Gaussian. Which defects lie
# outside of it, and how much of the answer is owed to the random choice of features?
#
# **Reads** one category's splits in the domain that the detector is fitted on. **Writes** the fitted model and its
# predictions to `outputs/<profile>/`; the evaluation reads those and never runs the network again.
#
# **Takes** seconds per category on the tiny set, about half a minute on 200 images of 224 px. **Before this:** 03.
# **After:** 07.
#
# Method: Defard et al., *PaDiM: a Patch Distribution Modeling Framework*, ICPR 2020 workshops. The Gaussians and the
# distance are anomalib's torch model; the backbone and its weights are those of PatchCore. The first half of this
# notebook computes one location by hand with NumPy and checks it against the detector.
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
from nbhelpers.notebook import open_notebook

note = open_notebook("05_padim", profile, overrides)
study, NAME = note.study, f"{category}_{domain}"

# %% [markdown]
# ## The idea
#
# PatchCore (notebook 04) asks whether a patch was seen *anywhere* before. PaDiM asks a narrower question: is the
# patch usual for *this place of the image*? For each cell of the feature grid it learns the mean and the covariance
# of the normal features there, which are one Gaussian. A new patch is judged by its Mahalanobis distance: how many
# standard deviations it lies away from the mean, in the direction in which it lies. Three steps:
#
# 1. features of every place, of which a random subset is kept;
# 2. one Gaussian per place;
# 3. the distance of a new image's features to the Gaussians, which is the anomaly map.
#
# This works where objects stand at the same place in all images, as they do in a fixture. In return there is nothing
# to search: the cost of an image does not grow with the training set.

# %%
detector = study.detector("padim", category, fitted_on=domain)
split = study.split(category, domain)
print(f"{len(split['train'])} training images, {detector.stats['n_locations']} Gaussians over {detector.n_features} "
      f"features, out of {sum(detector.backbone.channels.values())} channels")

# %% [markdown]
# One Gaussian for each cell of the grid, and one mean per feature in each of them. The next line says what fitting
# took on this machine.

# %% tags=["nbval-ignore-output"]
study.describe_cost("padim", category, fitted_on=domain)

# %% [markdown]
# There is no bank to be chosen, so fitting takes little more than one pass of the images through the network.
#
# ## Step 1, by hand: the embedding
#
# One defect image of the validation split goes through the network.

# %%
import torch

from nbhelpers.figures import images

shown = images.one_of_each(split["val"], 1)[0]
picture, mask = images.load_thumbnail(shown, study.config.data.image_size)
x = next(detector.batches([shown], "one image", "test")).images.to(detector.device)
with torch.no_grad():
    layers = detector.backbone(x)
print("\n".join(f"layer {name}: {tuple(layer.shape)}" for name, layer in layers.items()))

# %% [markdown]
# Each layer has its own number of channels and its own grid. PaDiM brings all of them to the finest grid, by
# repeating each coarse cell, and puts the channels one behind the other (sec. III-A). Then it keeps a random subset
# of the channels: the paper found that a random subset does as well as a principal component analysis, and is
# cheaper. The subset is drawn once by the seed and stored with the model.

# %%
from torch.nn import functional as F

finest_first = sorted(layers.values(), key=lambda layer: -layer.shape[-1])
grid = tuple(finest_first[0].shape[-2:])
stacked = torch.cat([F.interpolate(layer, size=grid, mode="nearest") for layer in finest_first], dim=1)
embedding = stacked[:, detector.feature_indices]  # (1, n_features, h, w)
print(f"all channels: {tuple(stacked.shape)}, the kept ones: {tuple(embedding.shape)}; "
      f"the first kept are {detector.feature_indices[:6].tolist()}")
assert torch.allclose(embedding, detector.embed(x), atol=1e-4), "by hand and by the detector, embeddings differ"

# %% [markdown]
# The second number shrank from all channels to the kept ones; the grid stayed. So every cell $(i, j)$ of an image $k$
# now has a vector $x_{ij}^k$ with as many numbers as there are kept features.
#
# ## Step 2, by hand: one Gaussian
#
# The same embedding of all training images, one row of the table per image. We look at one location: the one where
# the chosen image will turn out to be strangest.

# %%
import numpy as np

training = torch.cat([detector.embed(batch.images.to(detector.device))
                      for batch in detector.batches(split["train"], "features", "train")])
scores_of_image = detector.patch_scores(embedding)[0].cpu().numpy()  # (h, w)
row, column = (int(place) for place in np.unravel_index(scores_of_image.argmax(), grid))
samples = training[:, :, row, column].cpu().numpy().astype(float)  # (N, n_features)
tested = embedding[0, :, row, column].cpu().numpy().astype(float)  # (n_features,)
print(f"row {row}, column {column}: {samples.shape[0]} training vectors of {samples.shape[1]} numbers, "
      "and one to judge")

# %% [markdown]
# There is one training vector per training image. Where is this place? It is framed in the tested image and in a
# training image.

# %%
from nbhelpers.figures import steps

here = {"the location in the tested image": (picture, [(row, column)]),
        "and in a training image": (images.load_thumbnail(split["train"][0])[0], [(row, column)])}
note.save(steps.plot_framed(here, grid, around=5), f"{NAME}_location")

# %% [markdown]
# The frame stands at the same place in both, and what it contains need not be the same part of the object: that is
# the assumption of this method, drawn. The Gaussian there has the mean and the covariance (eq. 1)
#
# $$\hat\mu_{ij} = \frac{1}{N} \sum_{k=1}^{N} x_{ij}^k, \qquad
# \hat\Sigma_{ij} = \frac{1}{N - 1} \sum_{k=1}^{N} (x_{ij}^k - \hat\mu_{ij})(x_{ij}^k - \hat\mu_{ij})^{\mathsf T}
# + \varepsilon I, \qquad \varepsilon = 0.01 .$$

# %%
n_images, n_features = samples.shape
mean = samples.mean(axis=0)
centred = samples - mean
covariance = centred.T @ centred / (n_images - 1) + 0.01 * np.eye(n_features)
learned = detector.tensors()
place = row * grid[1] + column
print(f"mean {mean.shape}, covariance {covariance.shape}")
assert np.allclose(mean, learned["mean"][:, place].cpu(), atol=1e-3), "the means differ"
inverse, ours = learned["inv_covariance"][place].cpu().numpy(), np.linalg.inv(covariance)
assert np.linalg.norm(inverse - ours) < 0.02 * np.linalg.norm(ours), "the inverse covariances differ"

# %% [markdown]
# The detector stores the inverse of the covariance, since that is what the distance needs; the assertion compares it
# with the inverse of ours. They agree to a few thousandths, which is what 32-bit numbers leave of variances that
# differ by a factor of ten thousand and more. Why is $\varepsilon I$ added? With $N$ training images the sum has at
# most $N - 1$ independent directions. In all others it has no variance at all, and its inverse does not exist. The
# figure shows the variances along the principal directions, from the largest to the smallest.

# %%
variances, directions = (part[..., ::-1] for part in np.linalg.eigh(covariance))  # the largest first
floor = np.full(n_features, 0.01)
note.save(steps.plot_curves({"variance": variances, "0.01": floor}, "direction", "variance", log=True),
          f"{NAME}_variances")
print(f"{(variances > 0.0101).sum()} of {n_features} directions have a variance above the 0.01 that is added")
assert (variances > 0.0101).sum() < n_images, "more directions than images can span"

# %% [markdown]
# Where the curve lies on the dashed line, the training images say nothing; there, $\varepsilon$ decides what is far.
#
# ## Step 3, by hand: the Mahalanobis distance
#
# How far is the tested vector from the mean? The plain (Euclidean) distance treats all directions in the same way.
# The Mahalanobis distance (eq. 2) divides each by its standard deviation:
#
# $$M(x_{ij}) = \sqrt{(x_{ij} - \hat\mu_{ij})^{\mathsf T} \, \hat\Sigma_{ij}^{-1} \, (x_{ij} - \hat\mu_{ij})} .$$

# %%
offset = tested - mean
by_hand = np.sqrt(offset @ np.linalg.solve(covariance, offset))
usual = np.sqrt(np.einsum("kf,kf->k", centred, np.linalg.solve(covariance, centred.T).T))
print(f"Euclidean {np.linalg.norm(offset):.0f}, Mahalanobis {by_hand:.0f}; "
      f"the detector says {scores_of_image[row, column]:.0f}")
print(f"the training images themselves lie at Mahalanobis distances from {usual.min():.1f} to {usual.max():.1f}")
unknown = np.square(directions.T @ offset) / variances  # of each direction, the square's part of the distance
share = unknown[variances < 0.0101].sum() / unknown.sum()
print(f"{share:.0%} of the squared distance lies along directions in which no training image varies")
assert np.isclose(by_hand, scores_of_image[row, column], rtol=1e-2), "by hand and by the detector, distances differ"

# %% [markdown]
# Compare the second line with the first: a defect should lie farther out than any training image. That comparison is
# not fair, since the training images made the Gaussian. With no more images than features they even lie all at the
# same distance, $(N - 1) / \sqrt N$: each of them is alone in a direction of its own. So a threshold is never taken
# from them. The third line says what the score is made of then: a large share means that PaDiM mostly asks whether a
# patch leaves the space that the training images span, and only then how far it moves within it.
#
# In two dimensions one can see what the covariance does. The next figure takes the two features that go together most
# closely among the training images.

# %%
deviation = np.sqrt(np.diag(covariance))
correlation = np.abs(covariance / np.outer(deviation, deviation))
np.fill_diagonal(correlation, 0)
pair = list(np.unravel_index(correlation.argmax(), correlation.shape))
note.save(steps.plot_gaussian(samples[:, pair], mean[pair], covariance[np.ix_(pair, pair)], tested[pair]),
          f"{NAME}_gaussian")

# %% [markdown]
# The ellipses are at Mahalanobis distance 1, 2 and 3. They are long where the two features vary together: a step
# along them is ordinary, and the same step across them is not. A Euclidean distance would draw circles and miss this.
#
# ## All locations at once
#
# The same distance at each cell gives a map. It is enlarged to the size of the image and smoothed, as PatchCore's is.

# %%
difference = embedding[0].flatten(1).T - learned["mean"].T  # (h w, n_features)
squares = torch.einsum("lf,lfg,lg->l", difference, learned["inv_covariance"], difference)
distances = squares.clamp(min=0).sqrt().reshape(grid).cpu().numpy()
anomaly_map = detector.anomaly_maps(torch.from_numpy(distances)[None])[0]
stages = {"image": picture, "Mahalanobis distance": distances, "enlarged and smoothed": anomaly_map}
note.save(steps.plot_stages(stages), f"{NAME}_map")
assert np.allclose(distances, scores_of_image, rtol=1e-2), "the maps of distances differ"

# %% [markdown]
# The image score is the largest value of the smoothed map. Compare the brightest part with the defect in the image.
#
# ## Where is it blind?
#
# How much normal images vary at each place decides how far a defect must stand out there. Bright is where almost
# anything passes for normal.

# %%
spread = detector.spread()  # (h, w)
note.save(images.plot_locations(images.spread(split["train"], 3), spread), f"{NAME}_spread")
print(f"standard deviation of the features, on average: {spread.min():.1f} at the quietest location, "
      f"{spread.max():.1f} at the most restless one")

# %% [markdown]
# The distance divides by these numbers, so the same change of the features counts for more at a quiet place. A defect
# in the background is seen at once, and one on a part that moves from image to image may pass for a normal variation.
#
# ## Predict once
#
# Everything that any scenario will need of this detector, computed now and stored. For a detector of the clean
# domain, that includes the scores of a few refits, each without a part of the good images, on which notebook 09
# calibrates thresholds.

# %%
stored = note.predict("padim", category, fitted_on=domain)
print("\n".join(f"{name}: {len(part)} images scored" for name, part in stored.items()))

# %% [markdown]
# Each line is a domain and a split. Test predictions are stored and not looked at here.
#
# ## A threshold from validation
#
# As in notebook 04: the middle of the best plateau of F1 on the validation images.

# %%
from nbhelpers.evaluation.thresholds.calibrate import f1_optimal
from nbhelpers.figures import scores

val = stored[f"{domain} val"]
threshold = f1_optimal(val.labels, val.image_scores)
note.save(scores.plot_f1_curve(val, threshold.value, "padim"), f"{NAME}_f1_curve")
print(f"F1 {threshold.calibration['f1']:.2f} on {threshold.n_good} good and {threshold.n_defect} defect images")

# %% [markdown]
# The dashed line is the threshold that is deployed; the wider the plateau around it, the less it owes to single
# images.

# %%
note.save(scores.plot_scores({f"validation, {domain}": val}, threshold.value), f"{NAME}_scores")

# %% [markdown]
# Red left of the line is a missed defect, blue right of it a false alarm.
#
# ## Where does it look?
#
# One defect of each type with its anomaly map, then some good images. All maps share one colour scale, and a red
# title is a wrong decision.

# %%
limits = images.shared_limits(val)
defects = images.one_of_each(split["val"], 6)
good = images.spread([sample for sample in split["val"] if not sample.label], 6)
note.save(images.plot_anomaly_maps(defects, val, limits, threshold.value), f"{NAME}_defect_maps")
note.save(images.plot_anomaly_maps(good, val, limits, threshold.value), f"{NAME}_good_maps")

# %% [markdown]
# PaDiM's maps are softer than PatchCore's, because neighbouring Gaussians are learned from the same images. Look for
# good images that glow at one place: there the object stands otherwise than in the training images.
#
# ## How many features are worth keeping?
#
# The same detector with other numbers of features, judged on clean validation images, never on test images.

# %%
from nbhelpers.analyses.refits import seeds, sweep

sizes_tried = sweep(study, "padim", category, "clean", "padim.n_features", [25, 100, 150])
note.show(sizes_tried[["padim.n_features", "image_auroc", "f1_max"]])

# %% [markdown]
# More features cost memory with their square. If the last row is no better than the one before, they are not worth
# it.
#
# ## How much of it is luck?
#
# The subset of features is drawn at random. Below are the same images and the same network with other seeds;
# published runs of PaDiM on one category differ by 0.09 in image AUROC for this reason alone. These are clean test
# images and ranking metrics, so that no threshold comes into it.

# %%
refits = seeds(study, category).pivot(index="seed", columns="metric", values="value")
note.show(refits.agg(["mean", "min", "max"]).rename_axis("of the seeds"))

# %% [markdown]
# A difference between two methods that is smaller than the distance from the second row to the third says nothing.
#
# ## What we found
#
# Computed from this run's validation images:

# %%
from nbhelpers.evaluation.metrics import image_metrics
from nbhelpers.evaluation.significance import delong_interval

found = image_metrics(val.labels, val.image_scores, threshold.value)
print(f"{category}, {domain}: PaDiM ranks a defect above a good image in {found['image_auroc']:.0%} of all pairs; "
      f"it flags {found['recall']:.0%} of the defects and {1 - found['specificity']:.0%} of the good images")
print(f"{len(refits)} seeds differ by {refits.image_auroc.max() - refits.image_auroc.min():.2f} in image AUROC on test")
assert delong_interval(val.labels, val.image_scores)[1] > 0.5, "surely worse than chance: are the labels flipped?"
assert detector.feature_indices.unique().numel() == study.config.padim.n_features

# %% [markdown]
# The validation images also set the threshold, so their numbers are flattering. On test images, the same code finds
# the following on real images, with 95 % intervals; notebook 07 does the same for this run.

# %%
note.beside("clean", ["image_auroc", "aupro"], by_category=True, methods=["padim"], this_run=False)

# %% [markdown]
# Compare the rows with those at the end of notebook 04. One expects a Gaussian per place to be as good as a bank
# where objects stand at the same place in all images, and to fall behind where they do not.
