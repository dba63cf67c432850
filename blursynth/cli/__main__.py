"""``python -m blursynth.cli`` is the ``blursynth`` command, as torchrun or a machine without scripts on its PATH starts it."""

from blursynth.cli.main import main

main()
