"""How well a detector and a repair do on a zoo: numbers with intervals, tables and a plot."""
