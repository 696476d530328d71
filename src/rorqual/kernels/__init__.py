"""Every hot operation twice: a native C++ kernel and its plain torch twin of the same signature.

This package's own module imports neither torch nor the library; `ops.select_ops` chooses.
"""
