"""Hugging Face models that are no dialogue models: exported by a toolchain, read as sources.

::

    tasks.py     what a model does, by its architecture
    folder.py    what lies in a model's folder
    export.py    the export, kept in the toolchain's cache
    steps.py     pre- and post-processing, as the model's own files have it
    reader.py    all of that as a source

Dialogue models (:mod:`converters.decoder`) need no export: their graphs are our own.
"""
