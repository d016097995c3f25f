"""Methods that reconstruct the trigger of a backdoor from a network and a few benign images."""
