"""OpenFOAM behind the common interface: case files in, processes, fields out.

Nothing of OpenFOAM is imported: `text`, `mesh`, `screens`, `case` and `numerics` write plain files,
`process` runs the programs, `log` and `fields` read what they leave. `plan` chooses how screens are
put, `duct` and `calibration` measure them, `solve` runs a case, `archive` keeps a stopped one, and
`environment` knows the traps.
"""
