"""Annotations before they are a dataset: where they come from, which are good, and how they are split."""
