"""Methods that take a backdoor out of a network and hand back a repaired copy."""
