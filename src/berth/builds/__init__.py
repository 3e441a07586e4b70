"""Images from Dockerfiles: the build context, the cache, and the builds themselves."""
