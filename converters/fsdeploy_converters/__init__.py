"""Legacy formats to a model folder, one file per format."""
