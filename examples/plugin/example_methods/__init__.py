"""Methods, a student and a protocol of another package, as a template."""
