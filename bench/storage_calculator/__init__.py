"""Bytes of images, labels, teachers and projectors by arithmetic; networks are counted on torch's meta device."""
