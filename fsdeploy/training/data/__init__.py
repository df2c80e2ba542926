"""From a folder of face PNGs to the tensors that a trainer gets."""
