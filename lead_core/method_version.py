"""The version of the method's arithmetic: what a finished comparison cell may be reused under.

A cell costs minutes to hours, and most edits of the code do not change what it computes. So cells
kept as files (`comparison.py`) are reused while this number is the same. A test trains every selector
on a toy model (`tests/test_method_version.py`) and fails when picks or losses move: then raise the
number, which retires all kept cells.
"""

METHOD_VERSION = 1
