"""``python -m deblur_train.cli`` is the ``deblur-train`` command, as torchrun or a machine without scripts on its PATH starts it."""

from deblur_train.cli.main import main

main()
