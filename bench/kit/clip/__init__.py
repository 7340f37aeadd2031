"""Public image-text models: the packaged icon-clip, and named open_clip models."""
