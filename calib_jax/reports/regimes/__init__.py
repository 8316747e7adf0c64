"""The regimes of Xiao et al. 2025: methods, seeds and epochs in the plane of accuracy and ECE."""
