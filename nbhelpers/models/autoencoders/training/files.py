"""Names of the files that a training leaves in its folder."""

WEIGHTS = "weights.safetensors"  # written last: if it exists, the training is finished
HISTORY = "history.json"
RECIPE = "recipe.json"
#: The entries of the provenance that are known when a training starts.
ORIGIN = ("created", "git", "python", "packages", "platform", "device")
