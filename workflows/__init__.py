"""The core of Argosy: the pipeline, its steps and the engines that execute it. Knows nothing of Flask."""
