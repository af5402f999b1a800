"""The proof of discovery: made traffic of real applications, and how well it is understood.

`graph` reads an application, `world` lays it out in a cluster over two days, `traffic`, `around`
and `attacks` make its conversations, `simulate` is what agents tell of them, `files` writes it in
the documented formats. `proposed` is what discovery makes of the files, `judge` puts that before
the evaluator, `score` measures it. `python -m bench.discovery` prints the table.
"""
