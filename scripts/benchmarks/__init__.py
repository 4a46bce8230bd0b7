"""What scripts/bench.py measures: a module a section, and the tasks and contestants that sections share.

A section has a text that says how it is measured, `measure` for plain types that go to the JSON, and `render` for the
document, from the JSON alone.

Shapes: P members, B rows of a batch, F input columns.
"""
