"""Calibration and preference collapse after every stage of alignment: figure, tables, page."""
