"""Images: loading, saving, importing, unpacking and naming them."""
