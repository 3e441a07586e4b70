"""The file that starts a deputy. It is compiled each time, so little is in it."""

import gc
import sys

gc.disable()  # it ends before there is anything to collect
sys.path.append(__file__.rpartition("/berth/")[0])
from berth import pack  # noqa: E402

pack.use()
from berth.bundle import deputies  # noqa: E402

door = deputies.way(*sys.argv[1:])
pack.preload("berth.bundle.deputy")
from berth.bundle import deputy  # noqa: E402

deputy.serve(door)
