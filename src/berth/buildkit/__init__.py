"""BuildKit's protocol: builds of buildx, Compose and bake, made by berth's own builder."""
