"""Public image-text models: the packaged icon-clip, and any open_clip model by name."""
