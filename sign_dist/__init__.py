"""sign_dist: from a folder of sign-language videos to a tuned, served model, on a laptop or a cluster."""

__version__ = "0.1.0"
