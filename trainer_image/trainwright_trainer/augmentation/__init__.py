"""Altered copies of training images: which alterations there are, how a copy is made, and how many are."""
