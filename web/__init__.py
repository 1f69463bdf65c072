"""The Flask application: BinderHub's routes, the pages, launching, following. Holds no build logic."""
