"""Calibration of a series of models over scale, step or epoch: figures, tables and the page."""
