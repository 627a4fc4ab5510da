"""OpenFOAM behind the common interface: case files in, processes, fields out.

Nothing of OpenFOAM is imported: `text`, `mesh`, `screens` and `case` write plain files, `process`
runs the programs, `log` and `fields` read what they leave. `environment` knows the traps.
"""
