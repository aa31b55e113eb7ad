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
# **Question.** An image is as anomalous as its strangest patch, and a patch is as strange as it is far from every
# normal patch that was ever seen. Which defects does this find?
#
# **Reads** one category's splits in the domain that the detector is fitted on. **Writes** the fitted model and its
# predictions to `outputs/<profile>/`; the evaluation reads those and never runs the network again.
#
# **Takes** seconds per category on the tiny set, about a minute on 200 images of 224 px; a GPU helps with ResNets.
# **Before this:** 03. **After:** 07.
#
# Method: Roth et al., *Towards Total Recall in Industrial Anomaly Detection*, CVPR 2022. Sections and equations below
# are those of the paper. The first half of this notebook computes one image by hand, in plain tensor operations, and
# checks each step against the detector; the second half uses the detector.
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
from nbhelpers.notebook import open_notebook

note = open_notebook("04_patchcore", profile, overrides)
study, NAME = note.study, f"{category}_{domain}"

# %% [markdown]
# ## The idea
#
# A network that was trained on ImageNet turns an image into a grid of feature vectors. Each vector describes a small
# patch of the image: its edges, its texture, its colours. PatchCore collects the vectors of all good training images
# in a *memory bank*. To judge a new image, it asks for each of its patches: how far is the most similar patch that I
# have ever seen? A scratch looks like no patch of a good nut, so its distance is large. Nothing is trained. There are
# five steps:
#
# 1. features of patches, which know a little of their surroundings;
# 2. a memory bank, and a coreset of it that is small enough to search;
# 3. the distance of each patch to its nearest neighbour in the bank;
# 4. a weight for the largest of these distances, which gives the image score;
# 5. an anomaly map from all of them.
#
# The detector does all five. It is fitted here, or loaded where it was fitted before.

# %%
detector = study.detector("patchcore", category, fitted_on=domain)
split = study.split(category, domain)
bank = detector.memory_bank.cpu()
print(f"{len(split['train'])} training images gave {detector.stats['n_patches']} patch features "
      f"of {bank.shape[1]} numbers each; the memory bank keeps {len(bank)} of them: {tuple(bank.shape)}")

# %% [markdown]
# The first number of the shape is the size of the bank, $M$; the second is the length of a feature vector, $D$. The
# share that is kept is the setting `patchcore.coreset_ratio`. The next line says what fitting took on this machine.

# %% tags=["nbval-ignore-output"]
study.describe_cost("patchcore", category, fitted_on=domain)

# %% [markdown]
# Most of this time is for the features and for choosing the bank. Nothing is optimised: there are no gradients and no
# epochs.
#
# ## Step 1, by hand: from pixels to patch features
#
# We take one defect image of the validation split and follow it through the whole method. The test split is not
# looked at in this notebook.

# %%
from nbhelpers.figures import images

shown = images.one_of_each(split["val"], 1)[0]
picture, mask = images.load_thumbnail(shown, study.config.data.image_size)
x = next(detector.batches([shown], "one image", "test")).images.to(detector.device)
print(f"{shown.id}: x has the shape {tuple(x.shape)}")

# %% [markdown]
# The four numbers are one image, three colour channels, and the height and width in pixels. The pixels are normalised
# as ImageNet's were, because the network expects that. Its early layers see edges, its last layers see objects;
# PatchCore reads layers in between, which see textures and small parts.

# %%
import torch

with torch.no_grad():
    layers = detector.backbone(x)
print("\n".join(f"layer {name}: {tuple(layer.shape)}" for name, layer in layers.items()))

# %% [markdown]
# A deeper layer has more channels on a coarser grid: one cell of it stands for a larger part of the image. The paper
# calls the vector of layer $j$ at the cell $(h, w)$ $\phi_j(h, w)$ and makes it *locally aware* (sec. 3.1): it takes
# the mean over the neighbourhood of $3 \times 3$ cells,
#
# $$\tilde\phi_j(h, w) = \frac{1}{9} \sum_{a=-1}^{1} \sum_{b=-1}^{1} \phi_j(h + a, w + b),$$
#
# so that a patch is described together with its surroundings. Then the coarser grid is enlarged to the finer one, and
# the vectors of all layers at a cell are put one behind the other.

# %%
from torch.nn import functional as F

smoothed = {name: F.avg_pool2d(layer, 3, stride=1, padding=1) for name, layer in layers.items()}
grid = max(tuple(layer.shape[-2:]) for layer in smoothed.values())
aligned = [layer if tuple(layer.shape[-2:]) == grid else F.interpolate(layer, size=grid, mode="bilinear")
           for layer in smoothed.values()]
features = torch.cat(aligned, dim=1).permute(0, 2, 3, 1)  # (1, h, w, D)
print(f"patch features: {tuple(features.shape)}, one vector of {features.shape[-1]} numbers for each of "
      f"{grid[0]} x {grid[1]} cells")
assert torch.allclose(features, detector.extract(x), atol=1e-4), "by hand and by the detector, features differ"

# %% [markdown]
# The assertion holds: `detector.extract` does the same. Each cell of the grid is now one row of a table with $D$
# columns. Below, one cell in the middle of the image is framed and enlarged, and then the length of the vector at
# every cell is drawn.

# %%
from nbhelpers.figures import steps

middle = (grid[0] // 2, grid[1] // 2)
lengths = features[0].norm(dim=-1).cpu().numpy()  # (h, w)
note.save(steps.plot_framed({"one cell of the grid": (picture, [middle])}, grid, around=3), f"{NAME}_cell")
note.save(steps.plot_stages({"image": picture, "length of the feature vector": lengths}), f"{NAME}_lengths")

# %% [markdown]
# The length does not say what is unusual, and neither does any single number of a vector. Whether a patch is strange
# can only be told by comparison with the patches of good images.
#
# ## Step 2, by hand: a bank that covers all patches
#
# The patches of all training images are many, and most of them are nearly equal: background, plain surface. The paper
# keeps a *coreset* $\mathcal{M}_C$ of the bank $\mathcal{M}$ (sec. 3.2, algorithm 1). It is built greedily: start
# with any patch, and then always add the patch that is farthest from all that were picked so far,
#
# $$m_{i} = \underset{m \in \mathcal{M}}{\arg\max} \; \min_{n \in \mathcal{M}_C} \lVert m - n \rVert_2 .$$
#
# This makes the largest gap, the *covering radius*, small step by step. Here is the plain algorithm on the patches of
# two training images, beside the fast one that the detector uses on all of them.

# %%
from nbhelpers.models.patchcore import coreset, reference

few = detector.patch_features(images.spread(split["train"], 2)).cpu()  # (N, D)
plain = reference.greedy_coreset(few, 40, start=0)
fast = coreset.greedy_coreset(few, 40, start=0).tolist()
print(f"{tuple(few.shape)} features; the first picks are the rows {plain[:6]}")
assert plain == fast, "the fast coreset picked other rows than the plain one"

# %% [markdown]
# Both pick the same rows in the same order; [docs/coreset.md](../docs/coreset.md) proves that they always do. Is
# greedy worth the effort? The next figure compares the covering radius with that of a random choice of the same size.

# %%
order = torch.randperm(len(few), generator=torch.Generator().manual_seed(study.config.seed))[:40]
radius = {name: reference.distance_matrix(few, few[rows]).cummin(dim=1).values.amax(dim=0).numpy()
          for name, rows in (("greedy", plain), ("random", order))}
note.save(steps.plot_curves(radius, "patches in the bank", "covering radius"), f"{NAME}_covering")
print(f"with 40 patches the farthest patch is {radius['greedy'][-1]:.1f} away from a greedy bank and "
      f"{radius['random'][-1]:.1f} from a random one")
assert radius["greedy"][-1] <= radius["random"][-1], "a greedy bank leaves a larger gap than a random one"

# %% [markdown]
# The lower curve is better. A random choice takes most patches from where most patches are, and leaves the rare
# normal ones out; every rare normal patch that is left out becomes a false alarm. The detector's own bank among the
# patches of a few training images, projected to two dimensions, shows the same: it follows the whole cloud, edges
# included, and not only its dense middle.

# %%
import numpy as np
from sklearn.decomposition import PCA

cloud = detector.patch_features(images.spread(split["train"], 6)).cpu()
plane = PCA(2, random_state=study.config.seed).fit(cloud.numpy())
points = plane.transform(torch.cat([cloud, bank]).numpy())
note.save(images.plot_memory_bank(points, np.arange(len(cloud), len(points))), f"{NAME}_memory_bank")

# %% [markdown]
# Which patches are these? The detector remembers the training image that each bank feature came from; the cell is
# found by looking for the feature in that image. Frames mark the cells that were kept of three training images.

# %%
kept_of = images.spread(split["train"], 3)
numbers = [split["train"].index(sample) for sample in kept_of]
cells = [reference.nearest_neighbour(bank[detector.origins == number], detector.patch_features([sample]).cpu())[1]
         for number, sample in zip(numbers, kept_of, strict=True)]
framed = {f"training image {number}": (images.load_thumbnail(sample)[0],
                                       [divmod(cell, grid[1]) for cell in own.tolist()])
          for number, sample, own in zip(numbers, kept_of, cells, strict=True)}
note.save(steps.plot_framed(framed, grid), f"{NAME}_kept")

# %% [markdown]
# Frames gather where images differ from each other, and are rare where all images are the same.
#
# ## Step 3, by hand: the distance to the nearest normal patch
#
# Now the image is judged. For each of its patches $m^{test}$ the nearest member of the bank is searched. The patch
# with the largest of these distances is the strangest one, and this distance is $s^*$ (eq. 6):
#
# $$m^{test,*}, m^* = \underset{m^{test} \in \mathcal{P}(x)}{\arg\max} \; \underset{m \in \mathcal{M}}{\arg\min}
# \lVert m^{test} - m \rVert_2, \qquad s^* = \lVert m^{test,*} - m^* \rVert_2 .$$
#
# First for the framed cell alone, then for all cells.

# %%
one = features[0, middle[0], middle[1]].cpu()  # (D,)
to_bank = torch.linalg.norm(bank - one, dim=1)  # (M,)
print(f"{len(to_bank)} distances from {to_bank.min():.1f} to {to_bank.max():.1f}; "
      f"the nearest is number {to_bank.argmin()}")

# %% [markdown]
# The smallest of these distances is the score of this cell. Now the same for all cells at once.

# %%
patches = features.flatten(0, 2).cpu()  # (P, D)
distance, nearest = reference.nearest_neighbour(patches, bank)  # (P,) each
strangest = int(distance.argmax())
s_star, m_star = distance[strangest], int(nearest[strangest])
print(f"{len(distance)} patches; the strangest is number {strangest}, in row {strangest // grid[1]} and column "
      f"{strangest % grid[1]}; its distance is {s_star:.1f}")
patch_scores, image_scores, fast_nearest = detector.score_features(features)
assert torch.allclose(patch_scores.flatten().cpu(), distance, rtol=1e-4), "the fast distances differ"
to_fast = torch.linalg.norm(patches - bank[fast_nearest.flatten().cpu()], dim=1)
assert torch.allclose(to_fast, distance, rtol=1e-4), "the fast search found neighbours that are farther away"

# %% [markdown]
# The reference computes every distance. The detector computes only those that can matter, and finds the same
# neighbours at the same distances. What do the two patches look like? On the left the strangest patch of the image,
# on the right its nearest neighbour in the training image that it was taken from; the second row is enlarged.

# %%
source = split["train"][int(detector.origins[m_star])]
_, cell = reference.nearest_neighbour(bank[[m_star]], detector.patch_features([source]).cpu())
pair = {"strangest patch": (picture, [divmod(strangest, grid[1])]),
        "nearest normal patch": (images.load_thumbnail(source)[0], [divmod(int(cell), grid[1])])}
note.save(steps.plot_framed(pair, grid, around=3), f"{NAME}_nearest")

# %% [markdown]
# The right one is the most similar patch among all training images. If the two look the same to you, the detector is
# about to miss a defect or to raise a false alarm; if they do not, you see what it sees.
#
# ## Step 4, by hand: from the distance to the image score
#
# A large distance counts less where normal patches are many and near each other, and more where $m^*$ itself is a
# rare patch. So $s^*$ is weighted by the neighbourhood $\mathcal{N}_b(m^*)$ of $m^*$, its $b$ nearest members of the
# bank (eq. 7):
#
# $$w = 1 - \frac{\exp \lVert m^{test,*} - m^* \rVert_2}
# {\sum_{m \in \mathcal{N}_b(m^*)} \exp \lVert m^{test,*} - m \rVert_2}, \qquad s = w \cdot s^* .$$

# %%
b = detector.num_neighbors
around = reference.distance_matrix(bank[[m_star]], bank)[0].argsort(stable=True)[:b]  # N_b(m*)
to_around = torch.linalg.norm(patches[strangest] - bank[around], dim=1)  # (b,)
w = 1 - torch.exp(s_star - to_around.logsumexp(dim=0))
print("distances to the neighbourhood:", " ".join(f"{value:.1f}" for value in to_around))
print(f"w = {w:.3f}, so s = {w * s_star:.1f}")

# %% [markdown]
# The first distance is $s^*$, the others are those to the neighbours of $m^*$. Only the exponentials of the largest
# ones matter in the sum: when one neighbour lies much farther from the patch than $m^*$ does, $w$ is near 1 and
# changes nothing. It is smaller where all distances are about the same. The line above subtracts logarithms, since
# $\exp$ of a distance beyond 88 is more than a 32-bit number can hold. The plain reference and the detector give the
# same.

# %%
print(f"reference {reference.image_score(patches, bank, b):.1f}, detector {image_scores[0]:.1f}")
if detector.aggregation == "max" and detector.reweight:
    assert np.isclose(float(w * s_star), float(image_scores[0]), rtol=1e-4), "the image scores differ"

# %% [markdown]
# They agree. Of the two numbers, the detector uses the weighted one as the score of the image.
#
# ## Step 5, by hand: the anomaly map
#
# The distances of all patches, laid out on the grid again, are a small map. It is enlarged to the size of the image
# and smoothed with a Gaussian, whose width is the setting `smoothing_sigma`.

# %%
size = study.config.data.image_size
enlarged = F.interpolate(distance.reshape(1, 1, *grid), size=(size, size), mode="bilinear")[0].numpy()
anomaly_map = detector.smooth(enlarged)
stages = {"image": picture, "patch scores": distance.reshape(grid).numpy(), "enlarged": enlarged[0],
          "smoothed": anomaly_map[0]}
note.save(steps.plot_stages(stages), f"{NAME}_map")
assert np.allclose(anomaly_map, detector.score(x)[0], rtol=1e-3), "the anomaly maps differ"

# %% [markdown]
# From left to right nothing is added: the map is as coarse as the grid, and smoothing only rounds its corners. So a
# defect that is much smaller than a cell can raise a score, but its outline cannot be drawn. That is the whole
# method.
#
# ## Predict once
#
# Everything that any scenario will need of this detector is computed now and stored. For a detector of the clean
# domain, that includes the scores of a few refits, each without a part of the good images, on which notebook 09
# calibrates thresholds.

# %%
stored = note.predict("patchcore", category, fitted_on=domain)
print("\n".join(f"{name}: {len(part)} images scored" for name, part in stored.items()))

# %% [markdown]
# Each line is a domain and a split. Test predictions are stored and not looked at here.
#
# ## A threshold from validation
#
# An image is called defective if its score reaches a threshold. F1 changes only where a threshold passes a score, so
# every distinct threshold is tried; of the best plateau the middle is taken, not the edge.

# %%
from nbhelpers.evaluation.thresholds.calibrate import f1_optimal
from nbhelpers.figures import scores

val = stored[f"{domain} val"]
threshold = f1_optimal(val.labels, val.image_scores)
note.save(scores.plot_f1_curve(val, threshold.value, "patchcore"), f"{NAME}_f1_curve")
print(f"F1 {threshold.calibration['f1']:.2f} on {threshold.n_good} good and {threshold.n_defect} defect images")

# %% [markdown]
# The dashed line is the threshold that is deployed. A wide plateau means that many thresholds would do; a narrow one
# means that another handful of validation images could have moved it.

# %%
note.save(scores.plot_scores({f"validation, {domain}": val}, threshold.value), f"{NAME}_scores")

# %% [markdown]
# Blue are good images, red are defects. Red left of the line is missed, blue right of it is a false alarm. How far
# the two groups lie apart is what AUROC measures; where the line stands is a choice.
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
# Compare the bright parts with the outlined masks. A bright spot in a good image is a normal patch that the bank does
# not have: more training images, or a larger bank, would know it.
#
# ## How much of the training set is worth keeping?
#
# The same detector with other shares of the patches, judged on clean validation images, never on test images.

# %%
from nbhelpers.analyses.refits import sweep

ratios = sweep(study, "patchcore", category, "clean", "patchcore.coreset_ratio", [0.01, 0.05, 0.10])
note.show(ratios[["patchcore.coreset_ratio", "bank_size", "image_auroc", "f1_max"]])

# %% [markdown]
# Read the table downwards: the bank grows, and somewhere the ranking stops to improve. Beyond that point a larger
# bank costs time at every image and gives nothing back. With a handful of validation images, small steps are chance.
#
# ## What we found
#
# Computed from this run's validation images:

# %%
from nbhelpers.evaluation.metrics import image_metrics
from nbhelpers.evaluation.significance import delong_interval

found = image_metrics(val.labels, val.image_scores, threshold.value)
print(f"{category}, {domain}: PatchCore ranks a defect above a good image in {found['image_auroc']:.0%} of all pairs; "
      f"it flags {found['recall']:.0%} of the defects and {1 - found['specificity']:.0%} of the good images")
assert delong_interval(val.labels, val.image_scores)[1] > 0.5, "surely worse than chance: are the labels flipped?"
assert len(bank) == int(study.config.patchcore.coreset_ratio * detector.stats["n_patches"] + 1e-9)

# %% [markdown]
# These images also set the threshold, so the last two numbers are flattering. On test images, the same code finds the
# following on real images; rows of this run appear once notebook 07 has evaluated it.

# %% tags=["nbval-ignore-output"]
note.beside("clean", ["image_auroc", "aupro"], by_category=True, methods=["patchcore"])

# %% [markdown]
# Image AUROC says how well whole images are ranked, AUPRO how well the maps agree with the masks. Where the first is
# high and the second is not, the detector is right for reasons that lie beside the defect.
