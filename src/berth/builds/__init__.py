"""Images from Dockerfiles: the language, the build context, the cache, and the builds themselves."""
