"""Methods that tell of a backdoor by a score, without reconstructing its trigger."""
