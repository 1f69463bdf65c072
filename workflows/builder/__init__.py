"""Builds images: repo2docker's engine on buildah, the uv buildpack, and the walls around strangers' commands."""
