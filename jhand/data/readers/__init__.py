"""Readers of published recordings and datasets."""
