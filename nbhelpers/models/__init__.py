"""Images in, Predictions out: PatchCore, PaDiM and the autoencoders."""
