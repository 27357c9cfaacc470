"""The reference pages of the documents, made from the code that they are about.

`python -m tools.reference` writes them (`make reference`). Each module here owns one page; what
can't be read from the code, such as what to do about an error, stands here in a table that must
name everything the code has, and nothing else: else `Incomplete` is raised.
"""
