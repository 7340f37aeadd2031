"""Methods, a student, a label codec and a protocol of another package, as a template."""
