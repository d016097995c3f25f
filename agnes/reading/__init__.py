"""How images come off a disk: folders, lists, arrays and single files. `agnes.samples` is the way in."""
