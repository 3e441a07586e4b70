"""The file that scripts/berth-oci starts. It is compiled each time, so nothing is in it."""

import sys

if not __package__:  # by its path
    sys.path.append(__file__.rpartition("/berth/")[0])
from berth.oci_cli.start import start

start()
