"""One module a subject, each with `COMMANDS`: the words of a command -> the command."""
