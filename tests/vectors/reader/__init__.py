"""A reader of Harborseal segments, written from docs/FORMAT.md alone.

It shares no code with the engine, and stands beside it as a second opinion: tests/run has both read every
vector and every segment that the engine writes there, and compares. Section numbers in this package are
those of FORMAT.md.

    python3 -m reader verify FILE... --identity alice.identity

needs `cryptography` (requirements.txt) and a Python of at least 3.11. Whatever a file holds, the answer is a list
of findings, never an exception: an exception that leaves this package is a bug in it.

The files, in the order in which a segment passes them: crc32c, layout (bytes into fields), scan (a file into
blocks), merkle, keys, verify (what needs no key), opening (what needs one), chain (several segments), report,
vectors, __main__.
"""
