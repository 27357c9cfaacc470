"""What `broker doctor` looks at: one module a subject, each giving a list of `Check`.

Owns: the questions, the words of the findings and their cures. A check changes
nothing, is bounded in time, and never raises: what it cannot find out, it says.
Does not own: the command (`server_cli/doctor`), nor what is right (the same
code that the server runs).
"""
