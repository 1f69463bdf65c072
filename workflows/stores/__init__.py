"""Where things are kept: container storages, registries, the catalogue, staged images, findings."""
