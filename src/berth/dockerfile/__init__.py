"""The language of Dockerfiles, and what its instructions make of an image's configuration. Pure."""
