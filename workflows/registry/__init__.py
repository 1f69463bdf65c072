"""Registries: how one is spoken to, the images in it, and what refers to them."""
