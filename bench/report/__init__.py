"""Report: records → one DataFrame → comparisons, tables, figures, pages and published boards."""
