"""Public image-text models: the packaged icon-clip, and open_clip models by name."""
