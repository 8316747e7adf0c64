"""The study of pairs: what alignment changed, as numbers, tables, figures and a page."""
