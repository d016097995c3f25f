"""agnes zoo and agnes bench; nothing heavy is imported before a command needs it."""
