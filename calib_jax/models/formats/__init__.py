"""Checkpoints as they lie on disk: one reader a format, all behind one protocol.

A model folder is untrusted input. Nothing in here executes what a file holds, follows a path out
of its folder, or allocates by a size that the file's own length does not cover.
"""
