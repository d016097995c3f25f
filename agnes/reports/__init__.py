"""Reports: the same findings for a terminal, a program, and the eye."""
